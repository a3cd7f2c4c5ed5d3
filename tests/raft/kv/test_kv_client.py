"""The client of the key-value service, by itself: what it says of tries that came to nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from kv_one_node import TOKEN, OneNode

from denizen.raft.kv import errors
from denizen.raft.kv.client import KeyValueClient, Session
from denizen.raft.kv.http.protocol import Connection, HttpRequest, response
from denizen.raft.kv.http.server import HttpServer
from denizen.raft.kv.limits import BODY_BYTES_MAX


async def test_write_whose_time_was_over_before_it_was_connected_had_no_effect(deaf: str) -> None:
    async with KeyValueClient([deaf], "token", timeout_s=0.2) as client:
        with pytest.raises(errors.NoLeader, match="does not answer"):
            await client.put("x", "y")


async def test_write_that_was_sent_and_not_answered_may_have_happened(silent: str) -> None:
    async with KeyValueClient([silent], "token", timeout_s=2.0) as client:
        with pytest.raises(errors.OutcomeUnknown, match=r"the answer of .* was lost"):
            await client.put("x", "y")


@asynccontextmanager
async def served(handler: Callable[[HttpRequest], Awaitable[bytes | None]]) -> AsyncIterator[str]:
    """The URL of a server that answers so; None breaks the connection."""

    async def handle(request: HttpRequest, _: Connection) -> bytes | None:
        return await handler(request)

    server = HttpServer(handle, lambda _: True)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://{server.address[0]}:{server.address[1]}"
    finally:
        await server.stop()


NO_LEADER = response(503, json.dumps(errors.NoLeader("nobody leads").problem()).encode())


async def test_lost_answer_stays_unknown_whatever_later_tries_are_told() -> None:
    tries = 0

    async def answer(_: HttpRequest) -> bytes | None:
        nonlocal tries
        tries += 1
        return None if tries == 1 else NO_LEADER

    async with served(answer) as url, KeyValueClient([url], "token", timeout_s=0.5) as client:
        session = Session(client, 7)
        with pytest.raises(errors.OutcomeUnknown) as caught:
            await session.put("x", "y")
    assert tries > 1
    assert caught.value.facts["sequence"] == 1


async def test_write_without_an_outcome_is_made_again_with_its_sequence(node: OneNode) -> None:
    async with KeyValueClient([node.url], TOKEN) as client:
        session = await client.open_session()
        first = await session.put("x", "1")
        again = await session.call("put", {"key": "x", "value": "1"}, sequence=1)
    assert again == first


async def test_try_that_could_only_lose_its_answer_is_not_made() -> None:
    tries = 0

    async def answer(_: HttpRequest) -> bytes:
        nonlocal tries
        tries += 1
        await asyncio.sleep(3)  # as long as a node waits for a leader
        return NO_LEADER

    async with served(answer) as url, KeyValueClient([url], "token", timeout_s=5.5) as client:
        with pytest.raises(errors.NoLeader, match="nobody leads"):
            await client.put("x", "y")
    assert tries == 1


async def test_answer_that_is_none_of_a_nodes_leaves_a_write_unknown() -> None:
    async def answer(_: HttpRequest) -> bytes:
        return response(502, b"<html>Bad Gateway</html>", b"text/html")

    async with served(answer) as url, KeyValueClient([url], "token", timeout_s=0.3) as client:
        with pytest.raises(errors.OutcomeUnknown, match="status 502"):
            await client.put("x", "y")
        with pytest.raises(errors.TimedOut, match="status 502"):
            await client.get("x")


async def test_request_larger_than_a_node_takes_is_not_sent(node: OneNode) -> None:
    async with KeyValueClient([node.url], TOKEN) as client:
        with pytest.raises(errors.TooLarge, match=str(BODY_BYTES_MAX)):
            await client.put("x", "\x01" * (BODY_BYTES_MAX // 4))  # six bytes each, as JSON


async def test_keys_and_values_may_be_bytes(node: OneNode) -> None:
    async with KeyValueClient([node.url], TOKEN) as client:
        written = await client.put(b"\xff", b"\x00\x80")
        assert (await client.get(b"\xff") or {})["value_base64"] == "AIA="
        async for event in client.watch(b"\xff", from_revision=written["revision"]):
            assert event["key_base64"] == "/w=="
            break
        assert (await client.delete(b"\xff"))["deleted"] == 1


def test_client_of_no_node_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        KeyValueClient([], "token")
