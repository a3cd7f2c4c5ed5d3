"""A connection between two nodes, as frames: a length of four bytes, a tag, a body.

Until the handshake (see `handshake`) frames are small and carry no tag. Afterwards each has a tag of 16 bytes: a keyed
BLAKE2b of the body and the frame's number, with a key of this connection and direction, so that nobody between the
nodes can change, insert, drop or repeat a frame. A frame too long or with a wrong tag ends the connection.

Frames are either pulled with `receive` (in the handshake: reading pauses when nobody pulls) or, after `listen`,
handed to a callback at once. Writing is never blocked: `backlog` says how much waits, and the caller decides.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import cast

from denizen.raft import limits
from denizen.raft.errors import PeerRefused

_LENGTH_BYTES = 4
_TAG_BYTES = 16
_PULLED_FRAMES_MAX = 8


class Channel(asyncio.Protocol):
    """One connection, as the protocol of an asyncio transport."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._on_frame: Callable[[bytes], None] | None = None
        self._on_closed: Callable[[], None] | None = None
        self._frame_bytes_max = limits.handshake_bytes_max
        self._send_key = self._receive_key = b""
        self._sent = self._received = 0
        self.closed = False
        self.cause: Exception | None = None

    def seal(self, send_key: bytes, receive_key: bytes) -> None:
        """End of the handshake: frames carry tags made with these keys from now on, and may be large."""
        self._send_key, self._receive_key = send_key, receive_key
        self._frame_bytes_max = limits.frame_bytes_max

    def listen(self, on_frame: Callable[[bytes], None], on_closed: Callable[[], None]) -> None:
        """Hand every frame to `on_frame` from now on, and say once when the connection is gone."""
        self._on_frame, self._on_closed = on_frame, on_closed
        while self._frames and not self.closed:
            on_frame(self._frames.popleft())
        self._resume_reading()
        if self.closed:
            on_closed()

    def send(self, body: bytes) -> None:
        """Send one frame; it waits in memory if the peer is slow (see `backlog`)."""
        if self._transport is None or self.closed:
            return
        if not self._send_key:
            self._transport.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
            return
        tag = _tag(self._send_key, self._sent, body)
        self._sent += 1
        self._transport.write(b"".join(((len(body) + _TAG_BYTES).to_bytes(_LENGTH_BYTES, "big"), tag, body)))

    @property
    def backlog(self) -> int:
        """Bytes waiting to be sent."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def receive(self) -> bytes:
        """The next frame. Raises `PeerRefused` when the connection is gone."""
        while not self._frames:
            if self.closed:
                raise self.cause or PeerRefused("the peer closed the connection")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._frames.popleft()
        if len(self._frames) < _PULLED_FRAMES_MAX:
            self._resume_reading()
        return frame

    def close(self) -> None:
        """Send what waits, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self, cause: Exception | None = None) -> None:
        """Close now; `cause` is what a waiting `receive` raises."""
        self.cause = self.cause or cause
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop: cut the stream into frames."""
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= _LENGTH_BYTES and not self.closed:
            length = int.from_bytes(buffer[at : at + _LENGTH_BYTES], "big")
            if length > self._frame_bytes_max:
                self.abort(PeerRefused(f"a frame of {length} bytes is longer than {self._frame_bytes_max}"))
                return
            if end - at - _LENGTH_BYTES < length:
                break
            at += _LENGTH_BYTES
            self._frame(bytes(buffer[at : at + length]))
            at += length
        if at:
            del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: wake whoever waits."""
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._on_closed is not None:
            self._on_closed()

    def _frame(self, frame: bytes) -> None:
        if self._receive_key:
            body = frame[_TAG_BYTES:]
            if frame[:_TAG_BYTES] != _tag(self._receive_key, self._received, body):
                self.abort(PeerRefused("a frame's tag is wrong: it was changed on its way, or the peer is another"))
                return
            self._received += 1
            frame = body
        if self._on_frame is not None:
            self._on_frame(frame)
            return
        self._frames.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if len(self._frames) >= _PULLED_FRAMES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _tag(key: bytes, number: int, body: bytes) -> bytes:
    return blake2b(body, digest_size=_TAG_BYTES, key=key, salt=number.to_bytes(16, "big")).digest()
