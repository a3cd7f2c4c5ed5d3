"""The client against a real gateway: operations, typed errors, pages, and repeating what broke off."""

import asyncio
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from faulty_proxy import Fault, FaultyProxy

from denizen import client as public
from denizen.client import Client, RetryPolicy
from denizen.client.errors import Problem, problem_from
from denizen.client.retrying import NO_RETRIES
from denizen.errors import BadConfiguration
from denizen.http.problems import CATALOGUE
from denizen.testing.http import RunningServer

PASSWORD = "correct horse battery"


def some_email() -> str:
    return f"{uuid4().hex}@example.org"


class TestOperations:
    async def test_a_users_life(self, client: Client) -> None:
        email = some_email()
        user = await client.create_user(email=email, name={"given": "Ada"}, password=PASSWORD)
        assert (user.version, user.status, user.email) == (1, "active", email)
        assert (await client.find_user("email", email.upper())).id == user.id
        changed = await client.change_user(user.id, {"display_name": "Ada L.", "name": None}, if_version=1)
        assert (changed.display_name, changed.name) == ("Ada L.", None)
        assert (await client.suspend_user(user.id, "abuse")).status == "suspended"
        assert (await client.verify_password(user.id, PASSWORD)).reason == "suspended"
        assert (await client.reactivate_user(str(user.id))).status == "active"
        assert (await client.verify_password_of("email", email, PASSWORD)).valid
        await client.set_password(user.id, None)
        assert not (await client.verify_password(user.id, PASSWORD)).valid
        assert (await client.get_user(user.id, version=1)).display_name is None
        before = changed.updated_at - timedelta(microseconds=1)
        assert (await client.get_user(user.id, as_of=before)).version == 1
        assert (await client.delete_user(user.id, "asked")).status == "deleted"
        types = [event.type async for event in client.history(user.id, page=2)]
        assert types[0] == "UserRegistered"
        assert types[-1] == "UserDeleted"
        with pytest.raises(public.UserDeleted):
            await client.get_user(user.id)

    async def test_strange_login_names_are_found(self, client: Client) -> None:
        for email in (
            f"a/b+{uuid4().hex}@example.org",
            f"100%{uuid4().hex}@bücher.example",
            f"ü{uuid4().hex}@example.org",
        ):
            user = await client.create_user(email=email)
            assert (await client.find_user("email", email)).id == user.id

    async def test_batches(self, client: Client) -> None:
        results = await client.create_users([{"email": some_email()}, {"email": "x"}])
        assert [result.status for result in results] == [201, 422]
        assert results[1].problem is not None
        assert results[1].problem.code == "invalid"
        assert results[0].user is not None
        found = await client.get_users([results[0].user.id, uuid4()])
        assert [result.status for result in found] == [200, 404]

    async def test_a_batch_larger_than_a_mebibyte(self, client: Client) -> None:
        users = [{"email": some_email(), "attributes": {"text": "x" * 3_000}} for _ in range(500)]
        assert {result.status for result in await client.create_users(users)} == {201}

    async def test_every_user_is_listed_once(self, client: Client) -> None:
        made = {(await client.create_user(email=some_email())).id for _ in range(5)}
        seen = [user.id async for user in client.users(page=2)]
        assert made <= set(seen)
        assert len(seen) == len(set(seen))

    async def test_keys(self, client: Client, server: RunningServer) -> None:
        created = await client.create_key("reader", ["users:read"], rate_per_s=100)
        async with Client(server.url, created.secret) as reader:
            assert (await reader.get_users([uuid4()]))[0].status == 404
            with pytest.raises(public.Forbidden):
                await reader.list_keys()
        assert created.key in await client.list_keys()
        await client.revoke_key(created.key.id)
        async with Client(server.url, created.secret) as reader:
            with pytest.raises(public.Unauthenticated):
                await reader.get_user(uuid4())
        assert (await client.service_version()).api == "v1"


class TestErrors:
    async def test_problems_are_typed_and_tell_what_is_wrong(self, client: Client) -> None:
        user = await client.create_user(email=some_email())
        with pytest.raises(public.LoginNameTaken) as taken:
            await client.create_user(email=user.email)
        assert taken.value.facts["kind"] == "email"
        assert taken.value.request_id
        with pytest.raises(public.Invalid) as invalid:
            await client.create_user(email="x", country="XX")
        assert [error["field"] for error in invalid.value.errors] == ["email", "country"]
        with pytest.raises(public.VersionConflict):
            await client.change_user(user.id, {"locale": "de"}, if_version=5)
        with pytest.raises(public.WrongStatus):
            await client.reactivate_user(user.id)
        with pytest.raises(public.UserNotFound):
            await client.find_user("email", some_email())
        key = uuid4().hex
        await client.change_user(user.id, {"locale": "de"}, idempotency_key=key)
        with pytest.raises(public.IdempotencyKeyReused):
            await client.change_user(user.id, {"locale": "fr"}, idempotency_key=key)

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    async def test_a_number_that_is_none_is_refused_and_clears_nothing(self, client: Client, number: float) -> None:
        user = await client.create_user(email=some_email(), attributes={"plan": "gold", "deep": {"n": [1]}})
        for attributes, field in (({"plan": number}, "plan"), ({"a": None, "deep": {"n": [0.5, number]}}, "deep.n[1]")):
            with pytest.raises(public.Invalid, match="finite") as refused:
                await client.change_user(user.id, {"attributes": attributes})
            assert refused.value.errors[0]["field"] == f"attributes.{field}"
            with pytest.raises(public.Invalid):
                await client.create_users([{"email": some_email(), "attributes": attributes}])
            with pytest.raises(public.Invalid):
                await client.search_page(attributes=attributes)
        assert (await client.get_user(user.id)).version == 1

    async def test_a_text_that_is_no_unicode_is_refused(self, client: Client) -> None:
        with pytest.raises(public.Invalid, match="surrogates"):
            await client.create_user(username="\ud800")

    async def test_an_empty_login_name_is_refused(self, client: Client) -> None:
        with pytest.raises(public.Invalid, match="`email` must not be empty"):
            await client.find_user("email", "")
        with pytest.raises(public.Invalid):
            await client.verify_password_of("username", "", PASSWORD)

    @pytest.mark.parametrize(
        "url",
        ["", "localhost", "ftp://h", "http://", "http://h:99999", "http://h:0", "http://a b", "http://h\r", "http://h/?q",
         "http://u:p@h", "http://a..b", f"http://{'a' * 64}.example", "http://[::1"],
    )  # fmt: skip
    def test_an_impossible_address_is_refused_when_the_client_is_made(self, url: str) -> None:
        with pytest.raises(BadConfiguration, match="http://127"):
            Client(url, "key")

    @pytest.mark.parametrize("key", ["a\r", "a\nX-Header: b", "\0", "ä"])
    def test_an_impossible_key_is_refused_without_being_shown(self, key: str) -> None:
        with pytest.raises(BadConfiguration, match="character") as refused:
            Client("http://127.0.0.1:9", key)
        assert key not in str(refused.value)

    @pytest.mark.parametrize("url", ["http://[::1]:80", "https://bücher.example/denizen/", "http://localhost:8080"])
    def test_possible_addresses_are_taken(self, url: str) -> None:
        Client(url, "key")

    def test_every_retryable_code_of_the_api_is_retryable_here(self) -> None:
        for kind in CATALOGUE.values():
            problem = problem_from(kind.status, b'{"code":"%s","retryable":%s}' % (
                kind.code.encode(), b"true" if kind.retryable else b"false"))  # fmt: skip
            assert (problem.code, problem.retryable) == (kind.code, kind.retryable)

    def test_the_classes_agree_with_the_catalogue(self) -> None:
        for kind in Problem.__subclasses__():
            if kind.code != "unreachable":
                assert (kind.status, kind.retryable) == (CATALOGUE[kind.code].status, CATALOGUE[kind.code].retryable)

    @pytest.mark.parametrize(("status", "raw"), [(502, b"<html>"), (500, b""), (418, b"[]"), (503, b'"x"')])
    def test_a_reply_that_is_no_problem_is_one_all_the_same(self, status: int, raw: bytes) -> None:
        problem = problem_from(status, raw)
        assert (problem.status, problem.code) == (status, "unknown_problem")
        assert problem.retryable is (status in (502, 503))

    async def test_no_gateway_is_unreachable(self) -> None:
        async with Client("http://127.0.0.1:9", "key", retries=NO_RETRIES) as client:
            with pytest.raises(public.Unreachable):
                await client.create_user(email=some_email())

    async def test_an_empty_idempotency_key_is_refused_and_not_replaced(self, client: Client) -> None:
        with pytest.raises(Problem, match="`Idempotency-Key` must be 1 to 255 visible ASCII characters"):
            await client.create_user(email=some_email(), idempotency_key="")
        with pytest.raises(Problem, match="`Idempotency-Key` must be 1 to 255 visible ASCII characters"):
            await client.create_users([{"email": some_email()}], idempotency_key="")

    async def test_a_write_that_never_had_a_connection_changed_nothing(self, deaf: str) -> None:
        async with Client(deaf, "key", retries=NO_RETRIES, timeout_s=0.2) as client:
            with pytest.raises(public.Unreachable, match="does not answer: no connection in time"):
                await client.create_user(email=some_email())

    async def test_a_key_is_asked_for_again_if_there_was_no_connection(self, deaf: str) -> None:
        async with Client(deaf, "key", retries=RetryPolicy(attempts_max=2, first_wait_s=0.0), timeout_s=0.1) as client:
            with pytest.raises(public.Unreachable):
                await client.create_key("k", ["users:read"])

    async def test_a_write_that_was_sent_and_not_answered_may_have_happened(self, silent: str) -> None:
        async with Client(silent, "key", retries=NO_RETRIES, timeout_s=2.0) as client:
            with pytest.raises(public.OutcomeUnknown, match="did not answer in time") as unknown:
                await client.create_user(email=some_email())
        assert unknown.value.facts["idempotency_key"]


class TestRepeating:
    @pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.UNAVAILABLE])
    async def test_a_broken_write_is_repeated_under_its_key_and_happens_once(
        self, shaky: Client, client: Client, proxy: FaultyProxy, fault: Fault
    ) -> None:
        proxy.faults = [fault, fault]
        user = await shaky.create_user(email=some_email())
        keys = {match[1] for sent in proxy.requests if (match := re.search(rb"(?i)idempotency-key: (\S+)", sent))}
        assert (len(proxy.requests), len(keys)) == (3, 1)
        assert [event.type async for event in client.history(user.id)] == ["UserRegistered"]

    async def test_a_write_that_may_have_happened_is_reported_as_unknown(
        self, shaky: Client, client: Client, proxy: FaultyProxy
    ) -> None:
        email = some_email()
        proxy.faults = [Fault.AFTER] + [Fault.UNAVAILABLE] * 10
        with pytest.raises(public.OutcomeUnknown) as unknown:
            await shaky.create_user(email=email)
        proxy.faults = []
        key = unknown.value.facts["idempotency_key"]
        again = await shaky.create_user(email=email, idempotency_key=key)
        assert again.id == (await client.find_user("email", email)).id

    async def test_a_write_that_was_refused_is_not_unknown(self, shaky: Client, proxy: FaultyProxy) -> None:
        proxy.faults = [Fault.UNAVAILABLE] * 10
        with pytest.raises(Problem) as refused:
            await shaky.create_user(email=some_email())
        assert not isinstance(refused.value, public.OutcomeUnknown)
        assert len(proxy.requests) == 4

    async def test_a_read_is_repeated_and_finally_unreachable(self, shaky: Client, proxy: FaultyProxy) -> None:
        proxy.faults = [Fault.BEFORE] * 2
        assert await shaky.list_keys()
        proxy.faults = [Fault.BEFORE] * 10
        with pytest.raises(public.Unreachable):
            await shaky.list_keys()

    async def test_a_new_key_is_never_made_twice(self, shaky: Client, client: Client, proxy: FaultyProxy) -> None:
        name = uuid4().hex
        proxy.faults = [Fault.AFTER]
        with pytest.raises(public.OutcomeUnknown):
            await shaky.create_key(name, ["users:read"])
        assert sum(key.name == name for key in await client.list_keys()) == 1

    async def test_what_is_refused_for_good_is_not_repeated(self, shaky: Client, proxy: FaultyProxy) -> None:
        with pytest.raises(public.Invalid):
            await shaky.create_user(email="x")
        assert len(proxy.requests) == 1

    async def test_a_limited_client_waits_and_goes_on(self, client: Client, server: RunningServer) -> None:
        created = await client.create_key("slow", ["users:read"], rate_per_s=3)
        async with Client(server.url, created.secret, retries=RetryPolicy(first_wait_s=0.01)) as slow:
            found = await asyncio.gather(*(slow.get_users([uuid4()]) for _ in range(5)))
        assert len(found) == 5


class TestRetryPolicy:
    def test_waits_grow_to_a_bound_and_attempts_end(self) -> None:
        policy = RetryPolicy(attempts_max=5, first_wait_s=1.0, wait_s_max=3.0)
        waits = [policy.wait_s(attempt, None, lambda: 1.0) for attempt in range(1, 6)]
        assert waits == [1.0, 2.0, 3.0, 3.0, None]

    def test_a_wait_is_drawn_from_nothing_up(self) -> None:
        assert RetryPolicy().wait_s(1, None, lambda: 0.0) == 0.0

    def test_the_gateways_word_is_the_least_wait_but_not_any_wait(self) -> None:
        policy = RetryPolicy(first_wait_s=1.0, retry_after_s_max=30)
        assert policy.wait_s(1, 2.0, lambda: 0.5) == 2.5
        assert policy.wait_s(1, 3600.0, lambda: 0.5) is None
