"""Preconditions, idempotency keys and batches."""

import asyncio
from uuid import uuid4

import pytest
from http_api import Answer, Api, some_email

PASSWORD = "correct horse battery"


class TestPreconditions:
    async def test_a_stale_version_is_412_with_both_versions(self, api: Api) -> None:
        user = await api.user()
        path = f"/v1/users/{user['id']}"
        assert (await api("PATCH", path, {"locale": "de"}, If_Match='"1"')).status == 200
        answer = await api("PATCH", path, {"locale": "fr"}, If_Match='"1"')
        assert (answer.status, answer.code) == (412, "version_conflict")
        assert (answer.json["expected"], answer.json["actual"]) == (1, 2)

    @pytest.mark.parametrize(
        ("method", "tail", "body"),
        [("PATCH", "", {"locale": "de"}), ("DELETE", "", None), ("POST", ":suspend", None),
         ("POST", ":reactivate", None), ("PUT", "/password", {"password": PASSWORD})],
    )  # fmt: skip
    async def test_every_command_on_a_user_has_preconditions(
        self, api: Api, method: str, tail: str, body: object
    ) -> None:
        user = await api.user()
        path = f"/v1/users/{user['id']}{tail}"
        assert (await api(method, path, body, If_Match='"2"')).code == "version_conflict"
        assert (await api(method, path, body, If_Match='"nonsense"')).code == "version_conflict"
        assert (await api(method, path, body, If_Match='W/"1"')).code == "invalid_header"
        assert (await api(method, path, body, If_Match="1")).code == "invalid_header"
        if tail != ":reactivate":
            assert (await api(method, path, body, If_Match="*")).status == 200

    async def test_a_known_version_is_not_sent_again(self, api: Api) -> None:
        user = await api.user()
        for path in (f"/v1/users/{user['id']}", f"/v1/login-names/email/{user['email']}"):
            answer = await api("GET", path, If_None_Match='"1"')
            assert (answer.status, answer.raw, answer.headers["etag"]) == (304, b"", '"1"')
            assert (await api("GET", path, If_None_Match='"2"')).status == 200
            assert (await api("GET", path, If_None_Match="*")).status == 304
            assert (await api("GET", path, If_None_Match="1")).code == "invalid_header"


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


class TestIdempotency:
    async def test_a_repeated_registration_is_answered_from_before(self, api: Api) -> None:
        body, key = {"email": some_email(), "password": PASSWORD}, uuid4().hex
        first = await api("POST", "/v1/users", body, Idempotency_Key=key)
        again = await api("POST", "/v1/users", body, Idempotency_Key=key)
        assert (first.status, is_replay(first)) == (201, False)
        assert (again.status, is_replay(again)) == (201, True)
        assert again.json == first.json
        assert again.headers["denizen-position"] == first.headers["denizen-position"]

    async def test_a_repeated_change_is_done_once(self, api: Api) -> None:
        user, key = await api.user(), uuid4().hex
        path = f"/v1/users/{user['id']}"
        first = await api("POST", f"{path}:suspend", {"reason": "x"}, Idempotency_Key=key)
        again = await api("POST", f"{path}:suspend", {"reason": "x"}, Idempotency_Key=key)
        assert (again.status, is_replay(again), again.json) == (200, True, first.json)

    async def test_many_at_once_with_one_key_make_one_user(self, api: Api) -> None:
        body, key = {"email": some_email(), "username": uuid4().hex}, uuid4().hex
        answers = await asyncio.gather(*(api("POST", "/v1/users", body, Idempotency_Key=key) for _ in range(10)))
        good = [answer for answer in answers if answer.status == 201]
        assert len({answer.json["id"] for answer in good}) == 1
        assert all(answer.status in (201, 503) for answer in answers), [answer.raw for answer in answers]

    @pytest.mark.parametrize("elsewhere", [False, True])
    async def test_a_key_for_another_request_is_refused(self, api: Api, elsewhere: bool) -> None:
        body, key = {"email": some_email()}, uuid4().hex
        await api("POST", "/v1/users", body, Idempotency_Key=key)
        other = {"email": some_email()} if elsewhere else body | {"locale": "de"}
        answer = await api("POST", "/v1/users", other, Idempotency_Key=key)
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")

    async def test_a_gateway_that_forgot_still_refuses_reuse_for_the_same_user(self, api: Api) -> None:
        user, key = await api.user(), uuid4().hex
        path = f"/v1/users/{user['id']}"
        await api("PATCH", path, {"locale": "de"}, Idempotency_Key=key)
        api.server.services.recent_keys._fingerprints.clear()  # as after a restart
        assert (await api("PATCH", path, {"locale": "fr"}, Idempotency_Key=key)).code == "idempotency_key_reused"
        assert is_replay(await api("PATCH", path, {"locale": "de"}, Idempotency_Key=key))

    async def test_the_members_order_is_no_difference_but_another_password_is(self, api: Api) -> None:
        email, key = some_email(), uuid4().hex
        raw = b'{"email": "%s", "password": "%s"}' % (email.encode(), PASSWORD.encode())
        turned = b'{"password":"%s","email":"%s"}' % (PASSWORD.encode(), email.encode())
        await api("POST", "/v1/users", raw=raw, Idempotency_Key=key)
        assert is_replay(await api("POST", "/v1/users", raw=turned, Idempotency_Key=key))
        other = turned.replace(b"horse", b"house")
        assert (await api("POST", "/v1/users", raw=other, Idempotency_Key=key)).code == "idempotency_key_reused"

    async def test_a_refused_request_leaves_its_key_free(self, api: Api) -> None:
        taken, key = await api.user(), uuid4().hex
        refused = await api("POST", "/v1/users", {"email": taken["email"]}, Idempotency_Key=key)
        invalid = await api("POST", "/v1/users", {"email": "nonsense"}, Idempotency_Key=key)
        assert (refused.status, invalid.status) == (409, 422)
        assert (await api("POST", "/v1/users", {"email": some_email()}, Idempotency_Key=key)).status == 201

    async def test_keys_of_two_api_keys_do_not_meet(self, api: Api, make_key) -> None:  # type: ignore[no-untyped-def]
        other, key = await make_key("users:write"), uuid4().hex
        assert (await api("POST", "/v1/users", {"email": some_email()}, Idempotency_Key=key)).status == 201
        assert (await other("POST", "/v1/users", {"email": some_email()}, Idempotency_Key=key)).status == 201

    @pytest.mark.parametrize("key", ["", "x" * 256, "a b", "\u00fc"])
    async def test_a_bad_key_is_refused(self, api: Api, key: str) -> None:
        answer = await api("POST", "/v1/users", {"email": some_email()}, Idempotency_Key=key)
        assert (answer.status, answer.code) == (400, "invalid_header")


class TestBatches:
    async def test_each_user_of_a_batch_has_a_result_of_its_own(self, api: Api) -> None:
        taken = (await api.user())["email"]
        good = [some_email() for _ in range(3)]
        users = [
            {"email": good[0]},
            {"email": "x"},
            {"email": taken},
            {"email": good[1]},
            7,
            {"email": good[2], "x": 1, "country": "XX"},
        ]
        answer = await api("POST", "/v1/users:batch", {"users": users})
        results = answer.json["results"]
        assert answer.status == 200
        assert [result["status"] for result in results] == [201, 422, 409, 201, 422, 422]
        assert [result["user"]["email"] for result in results if "user" in result] == good[:2]
        assert results[2]["problem"]["code"] == "login_name_taken"
        assert [error["field"] for error in results[5]["problem"]["errors"]] == ["x", "country"]

    async def test_the_same_name_twice_in_one_batch_makes_one_user(self, api: Api) -> None:
        email = some_email()
        answer = await api("POST", "/v1/users:batch", {"users": [{"email": email}, {"email": email.upper()}]})
        assert sorted(result["status"] for result in answer.json["results"]) == [201, 409]

    async def test_a_thousand_users_in_one_batch(self, api: Api) -> None:
        users = [{"email": some_email(), "attributes": {"n": number}} for number in range(1000)]
        created = (await api("POST", "/v1/users:batch", {"users": users})).json["results"]
        assert {result["status"] for result in created} == {201}
        ids = [result["user"]["id"] for result in created]
        got = (await api("POST", "/v1/users:batch-get", {"ids": ids})).json["results"]
        assert [result["user"]["attributes"]["n"] for result in got] == list(range(1000))

    async def test_a_repeated_batch_is_answered_item_by_item(self, api: Api) -> None:
        key, users = uuid4().hex, [{"email": some_email()}, {"email": "x"}, {"email": some_email()}]
        first = (await api("POST", "/v1/users:batch", {"users": users}, Idempotency_Key=key)).json["results"]
        again = (await api("POST", "/v1/users:batch", {"users": users}, Idempotency_Key=key)).json["results"]
        assert [result.get("replayed") for result in again] == [True, None, True]
        assert [result.get("user") for result in again] == [result.get("user") for result in first]
        changed = [users[0], users[1], {"email": some_email()}]
        other = (await api("POST", "/v1/users:batch", {"users": changed}, Idempotency_Key=key)).json["results"]
        assert [result["status"] for result in other] == [201, 422, 422]
        assert other[2]["problem"]["code"] == "idempotency_key_reused"

    async def test_unknown_and_deleted_ids_have_their_problem(self, api: Api) -> None:
        user, deleted = await api.user(), await api.user()
        await api("DELETE", f"/v1/users/{deleted['id']}")
        ids = [user["id"], deleted["id"], str(uuid4())]
        results = (await api("POST", "/v1/users:batch-get", {"ids": ids})).json["results"]
        assert [result["status"] for result in results] == [200, 410, 404]

    @pytest.mark.parametrize(
        "body",
        [{}, {"users": []}, {"users": {}}, {"users": [{}] * 1001}, {"users": [{"email": "a@b.de"}], "x": 1}, [],
         {"users": [{"email": f"a{n}@example.org", "password": PASSWORD} for n in range(101)]}],
    )  # fmt: skip
    async def test_a_bad_batch_is_refused_whole(self, api: Api, body: object) -> None:
        answer = await api("POST", "/v1/users:batch", body)
        assert (answer.status, answer.code) == (422, "invalid")

    @pytest.mark.parametrize("ids", [None, [], ["x"], [1], [str(uuid4())] * 1001])
    async def test_bad_ids_are_refused(self, api: Api, ids: object) -> None:
        assert (await api("POST", "/v1/users:batch-get", {"ids": ids})).code == "invalid"
