"""The client of the key-value service, by itself: what it says of tries that came to nothing."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from denizen.raft.kv import errors
from denizen.raft.kv.client import KeyValueClient


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server whose system takes no further connections: who comes waits for one."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # more than it queues
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_write_whose_time_was_over_before_it_was_connected_had_no_effect(deaf: str) -> None:
    async with KeyValueClient([deaf], "token", timeout_s=0.2) as client:
        with pytest.raises(errors.NoLeader, match="does not answer"):
            await client.put("x", "y")


async def test_write_that_was_sent_and_not_answered_may_have_happened(silent: str) -> None:
    async with KeyValueClient([silent], "token", timeout_s=0.2) as client:
        with pytest.raises(errors.OutcomeUnknown, match=r"the answer of .* was lost"):
            await client.put("x", "y")
