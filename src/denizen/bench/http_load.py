"""A lean HTTP load generator: many connections, one request in flight on each, as little Python as possible.

The same client drives every server that is compared, so that its own cost weighs on all of them alike, and little.
It understands responses with a `Content-Length`, which is what key-value servers send to small writes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

from msgspec import Struct

from denizen.bench.report import percentile

RequestOf = Callable[[int], bytes]
"""Return the bytes of the n-th request."""


class LoadResult(Struct, frozen=True):
    """What a run measured: successful responses, other responses, wall time, and each success's latency, sorted."""

    succeeded: int
    failed: int
    seconds: float
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        return self.succeeded / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that `percent` of the successes did not exceed."""
        return percentile(self.latencies_ms, percent)


def post(host: str, path: str, body: bytes, token: str = "") -> bytes:
    """Return the bytes of a POST request."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{authorization}"
    return head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class _Lane(asyncio.Protocol):
    """One connection: sends the next request when the response of the last one is complete."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        transport = self._transport
        request = self._run.next_request()
        if transport is None:
            return
        if request is None:
            transport.close()
            return
        self._sent_at = time.perf_counter()
        transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = buffer
            return
        size = _content_length(buffer, end)
        if len(buffer) < end + 4 + size:
            self._buffer = buffer
            return
        self._buffer = b""
        self._run.record(buffer.startswith(b"HTTP/1.1 2"), time.perf_counter() - self._sent_at)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lane_closed()


def _content_length(buffer: bytes, end: int) -> int:
    at = buffer.find(b"Content-Length: ", 0, end)
    if at < 0:
        at = buffer.lower().find(b"content-length: ", 0, end)
    if at < 0:
        raise ValueError("the response has no Content-Length")
    return int(buffer[at + 16 : buffer.index(b"\r\n", at)])


class _Run:
    def __init__(self, request_of: RequestOf, lanes: int, deadline: float, requests_max: int) -> None:
        self._request_of = request_of
        self._deadline = deadline
        self._requests_max = requests_max
        self._started = 0
        self._open_lanes = lanes
        self.succeeded = 0
        self.failed = 0
        self.latencies: list[float] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes | None:
        if self._started >= self._requests_max or time.perf_counter() >= self._deadline:
            return None
        self._started += 1
        return self._request_of(self._started)

    def record(self, success: bool, seconds: float) -> None:
        if success:
            self.succeeded += 1
            self.latencies.append(seconds * 1e3)
        else:
            self.failed += 1

    def lane_closed(self) -> None:
        self._open_lanes -= 1
        if self._open_lanes == 0 and not self.finished.done():
            self.finished.set_result(None)


async def drive(
    host: str, port: int, request_of: RequestOf, *, lanes: int, seconds: float, requests_max: int = 1 << 60
) -> LoadResult:
    """Keep `lanes` requests in flight for `seconds` (or until `requests_max` were sent); return what was measured."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    run = _Run(request_of, lanes, started + seconds, requests_max)
    for _ in range(lanes):
        await loop.create_connection(lambda: _Lane(run), host, port)
    await asyncio.wait_for(run.finished, seconds + 30)
    return LoadResult(run.succeeded, run.failed, time.perf_counter() - started, sorted(run.latencies))
