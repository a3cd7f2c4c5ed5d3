"""Connections: HTTP/1.1 on the loop that everything else runs on, one request of a connection at a time, in order.

Parsing is llhttp's, the parser of Node.js, by way of aiohttp. Here is what is around it: the order of pipelined
requests, bodies that nobody wanted, replies and streams. A request costs no thread and no wake-up of its own, which is
most of what a server in another thread costs (see DESIGN.md).

Bounded are the bytes of a head, the requests parsed ahead, the bytes of a body that is not read yet, the seconds until
a head is complete, and those without any progress of an answer; the number of connections is the listener's.
"""

import asyncio
import fcntl
import re
import struct
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import unquote

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from denizen import limits
from denizen.http.replies import Headers

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_BODY: Final = (204, 304)
_HEAD_BYTES_MAX: Final = 2 * limits.header_bytes_max
# llhttp knows the methods of the IANA registry; any other token is a method too (RFC 9110, 9.1), which no route has.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) (/[\x21-\x7e]*) HTTP/1\.[01]\r\n")
_NO_FIELDS: Final = CIMultiDictProxy[str](CIMultiDict())
_ANY_HOST: Final = CIMultiDictProxy[str](CIMultiDict({"host": ""}))


class Listener(Protocol):
    """What a connection belongs to; see listener.py."""

    date: str
    stopping: bool

    @property
    def answer(self) -> "Callable[[Exchange], Awaitable[None]]": ...

    def joined(self, connection: "Connection") -> None: ...

    def left(self, connection: "Connection") -> None: ...


class ClientGone(Exception):
    """The client left before its request was here, or its answer sent."""


class Exchange:
    """One request, and the way back to its client. `path` is percent-decoded, `query` is not."""

    __slots__ = ("_connection", "_payload", "headers", "last", "method", "path", "query", "raw_headers", "version")

    def __init__(self, connection: "Connection", message: RawRequestMessage, payload: StreamReader) -> None:
        self._connection = connection
        self._payload = payload
        target = message.path
        if not target.startswith("/") and target != "*":
            target = message.url.raw_path_qs  # what proxies are sent: the whole URL
        if not target.isascii():
            target = target.encode(errors="surrogateescape").decode(errors="replace")
        path, _, query = target.partition("?")
        self.method = message.method
        self.path = unquote(path) if "%" in path else path
        self.query = query.partition("#")[0]
        self.headers = message.headers
        self.raw_headers = message.raw_headers
        self.version = message.version
        self.last = message.should_close or message.upgrade  # nothing else comes on this connection

    def received(self) -> bytes | None:
        """The body, if the whole of it is here; None if it is still on its way."""
        return self._payload.read_nowait() if self._payload.is_eof() else None

    async def body(self) -> bytes:
        """The body, as soon as the whole of it is here. `ClientGone`."""
        if "expect" in self.headers:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._payload.read()

    async def gone(self) -> None:
        """Comes to its end when the client goes away, or says that it sends nothing more."""
        await asyncio.shield(self._connection.lost)

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the whole answer. `ClientGone`."""
        length = "" if status in _WITHOUT_BODY else f"content-length: {len(body)}\r\n"
        head = self._head(status, headers, length)
        self._connection.write(head if self.method == "HEAD" or not length else head + body)

    def stream(self, status: int, headers: Headers) -> "Stream":
        """Begin an answer whose end is not known yet. `ClientGone`."""
        chunked = self.version.minor > 0
        self.last = self.last or not chunked
        self._connection.write(self._head(status, headers, "transfer-encoding: chunked\r\n" if chunked else ""))
        return Stream(self._connection, chunked)

    @property
    def whole(self) -> bool:
        """Whether the request has been received to its end."""
        return self._payload.is_eof()

    def abandon(self, error: ClientGone) -> None:
        """Whoever waits for the body need not any more."""
        if not self._payload.is_eof():
            self._payload.set_exception(error)

    def _head(self, status: int, headers: Headers, framing: str) -> bytes:
        if not self.whole or ("connection", "close") in headers:
            self.last = True
        text = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if text.count("\n") != len(headers) or text.count("\r") != len(headers):
            raise ValueError("a header field of a reply has a line break")
        if self.last and ("connection", "close") not in headers:
            framing += "connection: close\r\n"
        elif self.version.minor == 0 and not self.last:
            framing += "connection: keep-alive\r\n"
        return f"{_STATUS_LINES[status]}{text}{framing}date: {self._connection.date}\r\n\r\n".encode("ascii")


class Stream:
    """The body of an answer that is sent in pieces."""

    def __init__(self, connection: "Connection", chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked

    def send(self, data: bytes) -> None:
        """Send a piece, which must not be empty. `ClientGone`."""
        self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def unread(self) -> int:
        """Bytes that the client has not acknowledged."""
        return self._connection.unread()

    def end(self) -> None:
        """That was the last piece."""
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")


class Connection(BaseProtocol):
    """One connection: what comes in is parsed, and answered in order."""

    def __init__(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser = HttpRequestParser(
            self,
            loop,
            limits.body_buffer_bytes_max,
            max_line_size=_HEAD_BYTES_MAX,
            max_field_size=_HEAD_BYTES_MAX,
            max_headers=limits.header_fields_max,
            auto_decompress=False,
            max_msg_queue_size=limits.pipelined_requests_max,
        )
        super().__init__(loop, self._parser)
        self._listener = listener
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._newest: Exchange | None = None  # its body may still be on its way
        self._task: asyncio.Task[None] | None = None
        self._refusal = b""  # the last words, when what came could not be understood
        self._head_bytes = 0  # of a head that is not complete
        self._deaf = False  # what still comes is of no interest
        self._ended = False  # nothing comes any more
        self._lost: asyncio.Future[None] | None = None
        self._idle_since = loop.time()
        self._unsent = 0  # bytes, when it was looked at last

    @property
    def date(self) -> str:
        """The time of now, as the header field has it."""
        return self._listener.date

    @property
    def lost(self) -> "asyncio.Future[None]":
        """Done when the client is gone, or has ended what it sends: at first the two look the same."""
        if self._lost is None:
            self._lost = self._loop.create_future()
            if self.transport is None or self._ended:
                self._lost.set_result(None)
        return self._lost

    def write(self, data: bytes) -> None:
        """Send; `ClientGone`."""
        if self.transport is None or self.transport.is_closing():
            raise ClientGone
        self.transport.write(data)

    def unread(self) -> int:
        """Bytes that were sent and that the client has not acknowledged, those in the kernel included."""
        if self.transport is None:
            return 0
        try:
            answer = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        return self.transport.get_write_buffer_size() + int(struct.unpack("i", answer)[0])

    def end_soon(self) -> None:
        """Close when what was asked is answered."""
        if self._current is not None:
            self._current.last = True
        else:
            self.close()

    def look(self, now: float) -> None:
        """End what takes too long: a head, however slowly it comes, or a last answer of which nothing more is read."""
        transport = self.transport
        if self._current is not None or transport is None or now < self._idle_since + limits.header_read_ms / 1e3:
            return
        before, self._unsent = self._unsent, transport.get_write_buffer_size()
        self._idle_since = now
        if transport.is_closing() and not 0 < self._unsent < before:
            self._drop()
        else:
            transport.close()

    def close(self) -> None:
        """Close when everything written is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._task is not None:
            self._task.cancel()
        self._drop()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        super().connection_made(transport)
        self._listener.joined(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone. What it asked for last is done all the same; what it asked for after that is not."""
        super().connection_lost(exc)
        self._waiting.clear()
        self._end_waits()
        self._listener.left(self)

    def eof_received(self) -> bool:
        """Nothing more comes: close, but after what was asked for is answered. No wait for the client goes on."""
        self._ended = True
        self._end_waits()
        return self._current is not None or bool(self._waiting)

    def data_received(self, data: bytes) -> None:
        """Parse, and begin to answer."""
        if self._deaf:
            return
        in_body = self._newest is not None and not self._newest.whole
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(data, error)
            return
        if messages:
            self._head_bytes = 0
            for message, payload in messages:
                self._newest = Exchange(self, message, payload)
                self._waiting.append(self._newest)
            if len(self._waiting) + (self._current is not None) >= limits.pipelined_requests_max:
                self._pause_reading_for_buffer()  # the parser has stopped as well, and keeps the rest
            self._begin()
        elif not in_body:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self._end_with(_bare(431))
        if upgraded:
            self._deaf = True  # to another protocol, which we do not speak: the answer says so, and is the last one

    def resume_reading(self, resume_parser: bool = True) -> None:
        """A body is read: go on, if it was what kept us from it. Called for every body, nearly always in vain."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._begin()

    # One after the other

    def _begin(self) -> None:
        """Begin to answer the next request, if the one before is answered, and read."""
        if self._current is not None or self._paused:
            return
        if self._waiting:
            self._current = self._waiting.popleft()
            self._current.last = self._current.last or self._listener.stopping
            self._task = self._loop.create_task(self._answer(self._current))
            if self._buffer_paused and not self._waiting:
                self._resume_reading_for_buffer()
                self.data_received(b"")  # what the parser has kept
        elif self._refusal and self.transport is not None:
            self.transport.write(self._refusal)
            self._linger()
        elif self._ended:
            self.close()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._listener.answer(exchange)
        except BaseException:
            self._drop()  # half an answer is worse than none
            raise
        finally:
            self._current = self._task = None
        self._idle_since = self._loop.time()
        self._parser.message_consumed()
        if exchange.last or self.transport is None:
            if exchange.whole:
                self.close()
            else:
                self._linger()
            return
        self._begin()

    def _refuse(self, data: bytes, error: HttpProcessingError) -> None:
        """What came is no HTTP, or too much of it; or else HTTP that is the gateway's to refuse, as a problem."""
        if isinstance(error, LineTooLong) or "Too many headers" in error.message:
            self._end_with(_bare(431))
            return
        if "Missing 'Host'" in error.message:
            message = _message("GET", "/", _NO_FIELDS)
        elif isinstance(error, BadHttpMethod) and not self._head_bytes and (line := _REQUEST_LINE.match(data)):
            message = _message(line[1].decode(), line[2].decode(), _ANY_HOST)
        else:
            self._end_with(_bare(400))
            return
        self._waiting.append(Exchange(self, message, EMPTY_PAYLOAD))
        self._deaf = True
        self._begin()

    def _end_with(self, refusal: bytes) -> None:
        self._refusal, self._deaf = refusal, True
        self._begin()

    def _linger(self) -> None:
        """Close, but not at once: what the client still sends would make its system throw our answer away."""
        self._deaf = True
        transport = self.transport
        if self._ended:
            self.close()
        elif transport is not None and not transport.is_closing():
            transport.write_eof()
            transport.resume_reading()
            self._loop.call_later(limits.linger_s, self._drop)

    def _end_waits(self) -> None:
        """Whoever waits for the rest of a body, or for the client to leave, need not any more."""
        if self._newest is not None:
            self._newest.abandon(ClientGone())
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _message(method: str, path: str, fields: "CIMultiDictProxy[str]") -> RawRequestMessage:
    """A request that llhttp does not pass on."""
    return RawRequestMessage(method, path, HttpVersion11, fields, (), True, None, False, False, URL())


def _bare(status: int) -> bytes:
    """An answer to what is no request."""
    return f"{_STATUS_LINES[status]}content-length: 0\r\nconnection: close\r\n\r\n".encode()
