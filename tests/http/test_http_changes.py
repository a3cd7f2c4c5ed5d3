"""The feed of changes over HTTP: pages, long polls and server-sent events, from any place on, each change once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from http_api import Api, some_email

from denizen import limits
from denizen.testing.http import running_server
from denizen.testing.postgres import ThrowawayServer


class Message:
    """One server-sent event."""

    def __init__(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
        self.event, self.id = fields.get("event"), fields.get("id")
        self.data = json.loads(fields["data"]) if "data" in fields else None


@asynccontextmanager
async def stream(api: Api, query: str = "", **headers: str) -> AsyncIterator[Any]:
    """The messages of a stream, as an async generator."""
    sent = {"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream", **headers}
    async with api.session.get(f"{api.server.url}/v1/changes{query}", headers=sent) as reply:
        assert reply.status == 200, await reply.read()
        assert reply.headers["content-type"] == "text/event-stream"

        async def messages() -> AsyncIterator[Message]:
            text = ""
            async for part in reply.content.iter_any():
                text += part.decode()
                while "\n\n" in text:
                    one, text = text.split("\n\n", 1)
                    yield Message(one)

        yield messages()


def place_of(position: str) -> tuple[int, int]:
    """Bucket and sequence of a position."""
    bucket, sequence = position.split("-")
    return int(bucket, 16), int(sequence, 16)


async def page(api: Api, **query: Any) -> Any:
    answer = await api("GET", "/v1/changes?" + "&".join(f"{name}={quote(str(query[name]))}" for name in query))
    assert answer.status == 200, answer.raw
    return answer.json


async def until(messages: Any, user_ids: set[str]) -> tuple[list[Any], str]:
    """The changes up to those of all these users, and the cursor behind them."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        async for message in messages:
            if message.event == "changes":
                found += message.data["items"]
            if user_ids <= {item["user_id"] for item in found}:
                return found, message.id
    raise AssertionError("the stream ended")


async def test_a_feed_begins_now_and_goes_on_at_its_cursor(api: Api) -> None:
    await api.user()
    start = await page(api, **{"from": "now"})
    assert (start["items"], start["more"]) == ([], False)
    waiting = asyncio.create_task(page(api, cursor=start["next_cursor"], wait_s=20))
    user = await api.user(display_name="Ann")
    found = await waiting
    (change,) = [item for item in found["items"] if item["user_id"] == user["id"]]
    assert change["type"] == "UserRegistered"
    assert change["data"]["display_name"] == "Ann"
    assert change["position"] == user["position"]
    changed = (await api("PATCH", f"/v1/users/{user['id']}", {"country": "DE"})).json
    again = await page(api, cursor=found["next_cursor"], wait_s=20)
    assert [(item["type"], item["version"]) for item in again["items"]] == [("ProfileChanged", changed["version"])]


async def test_a_feed_from_the_beginning_gives_every_change_once_in_the_order_of_its_bucket(api: Api) -> None:
    users = [await api.user() for _ in range(20)]
    for user in users:
        await api("PATCH", f"/v1/users/{user['id']}", {"display_name": "x"})
    seen: list[tuple[int, int]] = []
    ids: set[str] = set()
    start = {"from": "beginning"}
    async with asyncio.timeout(20):  # the feed hears of heads a moment after the writes, and then tells its lag
        while (await page(api, **start, limit=1, wait_s=1))["lag_events"] == 0:
            pass
    while not {user["id"] for user in users} <= ids:
        found = await page(api, **start, limit=7, wait_s=5)
        start = {"cursor": found["next_cursor"]}
        seen += [place_of(item["position"]) for item in found["items"]]
        ids |= {item["user_id"] for item in found["items"]}
    assert len(set(seen)) == len(seen)
    for bucket in {bucket for bucket, _ in seen}:
        sequences = [sequence for other, sequence in seen if other == bucket]
        assert sequences == sorted(sequences)


async def test_a_stream_is_resumed_by_the_id_of_its_last_message(api: Api) -> None:
    async with stream(api) as messages:
        opened = await anext(messages)
        assert (opened.event, opened.data) == ("open", {})
    first = {(await api.user())["id"] for _ in range(5)}
    async with stream(api, **{"Last-Event-ID": opened.id}) as messages:
        found, cursor = await until(messages, first)
        second = {(await api.user())["id"] for _ in range(5)}
        more, _ = await until(messages, second)
    positions = [item["position"] for item in (*found, *more)]
    assert len(set(positions)) == len(positions)
    assert {item["user_id"] for item in found}.isdisjoint(second)
    async with stream(api, **{"Last-Event-ID": cursor}) as messages:
        again, _ = await until(messages, second)
    assert {item["position"] for item in more} <= {item["position"] for item in again}
    assert {item["position"] for item in again}.isdisjoint(item["position"] for item in found)


async def test_many_consumers_at_different_places_get_the_same_changes(api: Api) -> None:
    start = (await page(api))["next_cursor"]

    async def consume(limit: int) -> list[str]:
        cursor, found = start, list[str]()
        while len(found) < 60:
            got = await page(api, cursor=cursor, wait_s=10, limit=limit)
            cursor, found = got["next_cursor"], found + [item["position"] for item in got["items"]]
        return found

    consumers = [asyncio.create_task(consume(limit)) for limit in (1, 3, 50)]
    await asyncio.gather(*(api.user() for _ in range(60)))
    one, *others = await asyncio.gather(*consumers)
    assert len(set(one)) == len(one) == 60
    assert all(sorted(other) == sorted(one) for other in others)


async def test_types_and_buckets_narrow_a_feed_down(api: Api) -> None:
    start = await page(api, buckets="0-2047")
    other = await page(api, buckets="2048-4095")
    users = [await api.user() for _ in range(12)]
    for user in users:
        await api("PATCH", f"/v1/users/{user['id']}", {"display_name": "x"})
    low = [user["id"] for user in users if place_of(user["position"])[0] < 2048]
    found: list[Any] = []
    for at, types in ((start["next_cursor"], "UserRegistered"), (other["next_cursor"], "ProfileChanged")):
        cursor = at
        while True:
            got = await page(api, cursor=cursor, types=types, wait_s=1)
            cursor, found = got["next_cursor"], found + got["items"]
            if not got["items"] and not got["lag_events"]:
                break
    by_type = {kind: {item["user_id"] for item in found if item["type"] == kind} for kind in
               ("UserRegistered", "ProfileChanged")}  # fmt: skip
    assert by_type["UserRegistered"] == set(low)
    assert by_type["ProfileChanged"] == {user["id"] for user in users} - set(low)
    answer = await api("GET", f"/v1/changes?buckets=0-10&cursor={start['next_cursor']}")
    assert answer.code == "invalid_parameter"


@pytest.mark.parametrize(
    "query",
    ["cursor=AAAA", "cursor=%00", "from=then", "types=Nothing", "buckets=1", "buckets=9-1", "buckets=0-4096",
     "wait_s=61", "limit=1001"],
)  # fmt: skip
async def test_what_cannot_be_followed_is_refused(api: Api, query: str) -> None:
    answer = await api("GET", f"/v1/changes?{query}")
    assert (answer.status, answer.code) == (400, "invalid_parameter"), answer.raw


async def test_a_key_has_so_many_feeds_and_no_more(api: Api, make_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denizen.http.feeds.changes_feeds_of_key_max", 2)
    other = await make_key("users:read")
    async with stream(other) as one, stream(other) as two:
        await anext(one)
        await anext(two)
        refused = await other("GET", "/v1/changes")
        assert (refused.status, refused.code) == (429, "too_many_feeds")
        assert (await api("GET", "/v1/changes")).status == 200
    async with asyncio.timeout(10):
        while (await other("GET", "/v1/changes")).status != 200:
            await asyncio.sleep(0.02)


async def test_a_feed_needs_the_scope_and_ends_with_its_key(api: Api, make_key: Any) -> None:
    assert (await (await make_key("metrics:read"))("GET", "/v1/changes")).status == 403
    other = await make_key("users:read")
    async with stream(other) as messages:
        await anext(messages)
        key_id = other.key.split("_")[1]
        assert (await api("DELETE", f"/v1/keys/{key_id}")).status == 204
        async with asyncio.timeout(10):
            last = [message async for message in messages][-1]
    assert (last.event, last.data["code"]) == ("end", "unauthenticated")


async def test_a_consumer_that_does_not_read_is_cut_off_and_costs_no_memory(
    api: Api, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "changes_unread_s", 0.5)
    monkeypatch.setattr("denizen.http.handlers.changes.changes_pause_s", 0.0)
    socket = connect()
    head = f"GET /v1/changes?from=beginning HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
    socket.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
    feeds = api.server.services.feeds
    async with asyncio.timeout(60):
        while not feeds.open:
            await asyncio.sleep(0.01)
        while feeds.open:  # much is written until its buffers are full, then nothing is read for half a second
            bodies = [{"email": some_email(), "attributes": {"much": "x" * 16_000}} for _ in range(60)]
            assert (await api("POST", "/v1/users:batch", {"users": bodies})).status == 200
    received = b""
    socket.settimeout(5)
    while b"event: end" not in received[-4096:] or not received.endswith(b"\r\n0\r\n\r\n"):
        received += socket.recv(1 << 20)
    assert b'"code":"slow_consumer"' in received[-4096:]


async def test_a_gateway_that_stops_ends_its_streams_and_polls_at_once(
    postgres_server: ThrowawayServer, api: Api
) -> None:
    database = postgres_server.create_database()
    serving = running_server([database])
    server = await asyncio.to_thread(serving.__enter__)
    other = Api(api.session, server, server.admin_key)
    async with stream(other) as messages:
        await anext(messages)
        poll = asyncio.create_task(other("GET", "/v1/changes?wait_s=60"))
        async with asyncio.timeout(10):
            while server.services.feeds.open.total() < 2:
                await asyncio.sleep(0.02)
            began = asyncio.get_running_loop().time()
            stopping = asyncio.create_task(asyncio.to_thread(serving.__exit__, None, None, None))
            last = [message async for message in messages][-1]
            refused = await poll
        await stopping
    assert (last.event, last.data["code"]) == ("end", "stopping")
    assert (refused.status, refused.code) == (503, "stopping")
    assert asyncio.get_running_loop().time() - began < limits.drain_s
    postgres_server.drop_database(database)
