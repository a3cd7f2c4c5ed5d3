"""Answers without an end: server-sent events, sent no faster than the client reads.

Granian takes whatever is sent and keeps it in memory until the client reads it. So before each message we ask the
kernel how much of what was sent before the client has not acknowledged, and wait until it is nothing: at most a message
or two are ever on their way, and a client that does not read is found out. The kernel is asked through the connection's
own socket, found among ours by the client's address.
"""

import asyncio
import fcntl
import os
import socket
import stat
import struct
import termios
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # public by its docs, not by __all__
from msgspec import Struct

from denizen import limits
from denizen.http.refusals import SlowConsumer
from denizen.http.replies import Headers

_FDS: Final = "/dev/fd"
EVENT_STREAM: Final = "text/event-stream"


class Sender(Protocol):
    """Granian's stream."""

    def send_bytes(self, data: bytes) -> Awaitable[None]: ...


class StreamReply(Struct):
    """A reply whose body `run` sends; it is over when `run` returns."""

    run: Callable[["Outlet"], Coroutine[Any, Any, None]]
    headers: Headers
    status: int = 200


class Outlet:
    """Where messages go."""

    def __init__(self, sender: Sender, client: str) -> None:
        self._sender: Sender | None = sender
        self._connection = connection_of(client)

    async def send(self, message: bytes) -> None:
        """Send when the client has what was sent before. `SlowConsumer` if that takes too long."""
        deadline = asyncio.get_running_loop().time() + limits.changes_unread_s
        while self._unread():
            if asyncio.get_running_loop().time() > deadline:
                detail = f"what was sent was not read for {limits.changes_unread_s:g} s: go on with the last cursor"
                raise SlowConsumer(detail)
            await asyncio.sleep(limits.changes_unread_poll_s)
        await self._write(message)

    async def send_last(self, message: bytes) -> None:
        """Send whatever the client has read."""
        with suppress(ProtocolClosed):
            await self._write(message)

    async def _write(self, message: bytes) -> None:
        if self._sender is not None:
            await self._sender.send_bytes(message)

    def close(self) -> None:
        """End the body, and let our hold of the socket go; the connection stays the server's.

        Granian ends the body when its stream is forgotten, so it must not live on in some traceback.
        """
        self._sender = None
        if self._connection is not None:
            self._connection.close()

    def _unread(self) -> int:
        """Bytes sent and not acknowledged; 0 if nobody can say."""
        if self._connection is None:
            return 0
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError:
            return 0


def connection_of(client: str) -> socket.socket | None:
    """A second hold of the socket whose other end is there; None if it is not found."""
    host, _, port = client.rpartition(":")
    wanted = (host.strip("[]"), int(port)) if port.isdigit() else None
    for name in os.listdir(_FDS):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed meanwhile
            continue
        try:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getpeername()[:2] == wanted:
                return found
        except OSError:  # not connected
            pass
        found.close()
    return None


async def until_gone(work: Coroutine[Any, Any, Any], gone: Awaitable[Any]) -> Any:
    """The result of `work`; None if the client goes away before, and then the work is cancelled."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_end_of(gone))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _end_of(gone: Awaitable[Any]) -> None:
    """Granian's futures are not quite asyncio's; a task of ours around one is."""
    await gone
