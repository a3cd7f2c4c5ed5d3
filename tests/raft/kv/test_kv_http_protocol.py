"""The HTTP parser: however the bytes are cut the requests are the same, and no bytes make it fail."""

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from denizen.raft.kv.http.protocol import Connection, HttpRequest, response


class Wire(asyncio.Transport):
    """Where the connection writes to: the other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def served(parts: list[bytes]) -> tuple[list[tuple[str, bytes]], Wire]:
    """Feed parts to a connection; return the requests that it served, and the wire."""
    seen: list[tuple[str, bytes]] = []

    async def handler(request: HttpRequest, _: Connection) -> bytes:
        await asyncio.sleep(0)
        seen.append((request.head.path, request.body))
        return response(200, b"{}")

    wire = Wire()
    connection = Connection(handler, lambda _: True, {}, lambda _: None)
    connection.connection_made(wire)
    for part in parts:
        connection.data_received(part)
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.wait_for(connection.close(), 5)
    return seen, wire


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(at)]


bodies = st.lists(st.binary(max_size=20), min_size=1, max_size=5)
places = st.lists(st.integers(0, 10_000), max_size=12)


@settings(max_examples=150, deadline=None)
@given(bodies, places)
def test_requests_do_not_depend_on_how_the_bytes_are_cut(bodies: list[bytes], places: list[int]) -> None:
    data = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (number, len(body), body)
        for number, body in enumerate(bodies)
    )
    seen, wire = asyncio.run(served(cut(data, places)))
    assert seen == [(f"/{number}", body) for number, body in enumerate(bodies)]
    assert wire.written.count(b"HTTP/1.1 200 OK") == len(bodies)


fragments = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /a HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 3",
        b"Content-Length: x",
        b": ",
        b"abc",
        b"\x00",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(fragments, st.binary(max_size=10)), max_size=12), places)
def test_no_bytes_make_the_parser_fail(parts: list[bytes], places: list[int]) -> None:
    _, wire = asyncio.run(served(cut(b"".join(parts), places)))
    heads = [answer for answer in wire.written.split(b"HTTP/1.1 ") if answer]
    assert all(head[:3] in {b"200", b"400", b"411", b"413", b"431", b"505"} for head in heads)
