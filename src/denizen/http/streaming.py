"""Answers without an end: server-sent events, sent no faster than the client reads.

Before each message we ask the kernel how much of what was sent before the client has not acknowledged, and wait until
it is nothing: at most a message or two are ever on their way, and a client that does not read is found out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from denizen import limits
from denizen.http.connections import ClientGone, Stream
from denizen.http.refusals import SlowConsumer
from denizen.http.replies import Headers

EVENT_STREAM: Final = "text/event-stream"


class StreamReply(Struct):
    """A reply whose body `run` sends; it is over when `run` returns."""

    run: Callable[["Outlet"], Coroutine[Any, Any, None]]
    headers: Headers
    status: int = 200


class Outlet:
    """Where messages go."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, message: bytes) -> None:
        """Send when the client has what was sent before. `SlowConsumer` if that takes too long; `ClientGone`."""
        deadline = asyncio.get_running_loop().time() + limits.changes_unread_s
        while self._stream.unread():
            if asyncio.get_running_loop().time() > deadline:
                detail = f"what was sent was not read for {limits.changes_unread_s:g} s: go on with the last cursor"
                raise SlowConsumer(detail)
            await asyncio.sleep(limits.changes_unread_poll_s)
        self._stream.send(message)

    async def send_last(self, message: bytes) -> None:
        """Send whatever the client has read."""
        with suppress(ClientGone):
            self._stream.send(message)


async def until_gone(work: Coroutine[Any, Any, Any], gone: Awaitable[Any]) -> Any:
    """The result of `work`; None if the client goes away before, and then the work is cancelled."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
