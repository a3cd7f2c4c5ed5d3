"""Connections: their order, their bounds, and what clients do with them that nobody wants."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from http_api import Api, some_email
from test_http_protocol import read_reply, request

from denizen import limits
from denizen.http.connections import Connection, Exchange
from denizen.http.listener import Listener
from denizen.processes.ports import find_port
from denizen.testing.http import RunningServer

Connect = Callable[[], socket.socket]
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def test_more_pipelined_requests_than_are_parsed_ahead_are_answered_in_order(api: Api, connect: Connect) -> None:
    connection = connect()
    count = 20 * limits.pipelined_requests_max
    paths = ["/health/live", "/nowhere", "/v1/users?limit=1"]
    asked = [request(api, "GET", paths[number % 3], f"X-Request-Id: n{number}") for number in range(count - 1)]
    connection.sendall(b"".join([*asked, request(api, "GET", "/v1/version", "Connection: close")]))
    heads = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert [int(head[:3]) for head in heads] == [(200, 404, 200)[number % 3] for number in range(count - 1)] + [200]
    assert all(b"x-request-id: n%d\r\n" % number in head for number, head in enumerate(heads[:-1]))


def test_however_pipelined_requests_are_cut_into_pieces_all_are_answered(api: Api, connect: Connect) -> None:
    """In pieces of so many requests, each piece while the one before is answered; the last request has a body."""
    body = b'{"email":"nobody"}'
    post = request(api, "POST", "/v1/users", "Connection: close", body=body)
    for first in range(2 * limits.pipelined_requests_max):
        for more in (1, limits.pipelined_requests_max - 1, limits.pipelined_requests_max, 40):
            connection = connect()
            ask = request(api, "GET", "/v1/users?limit=1")
            if first:
                connection.sendall(ask * first)
            connection.sendall(ask * more + post[:-5])
            time.sleep(0.002)
            connection.sendall(post[-5:])
            statuses = [int(part[:3]) for part in read_all(connection).split(b"HTTP/1.1 ")[1:]]
            assert statuses == [200] * (first + more) + [422], (first, more)


def test_a_client_that_does_not_read_gets_everything_in_the_end(api: Api, connect: Connect) -> None:
    connection = connect()
    count = 300
    ask = request(api, "GET", "/v1/openapi.json")
    connection.setblocking(False)
    todo = ask * (count - 1) + request(api, "GET", "/v1/openapi.json", "Connection: close")
    try:
        while todo:
            todo = todo[connection.send(todo) :]
    except BlockingIOError:
        pass  # the server does not read on either
    time.sleep(0.2)
    connection.setblocking(True)
    connection.settimeout(0.05)
    data = b""
    while True:
        try:
            part = connection.recv(1 << 20)
            if not part:
                break
            data += part
        except TimeoutError:
            pass
        if todo:
            todo = todo[connection.send(todo) :]
    assert data.count(b"HTTP/1.1 200 OK") == count


@pytest.mark.parametrize(
    ("head", "answered"),
    [
        (b"GET /health/live HTTP/1.0\r\n\r\n", b"connection: close"),
        (b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"connection: keep-alive"),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"connection: close"),
        (b"GET http://somewhere.example/health/live?x HTTP/1.1\r\nHost: a\r\n\r\n", b"invalid_parameter"),
        (b"GET http://somewhere.example/health/live HTTP/1.1\r\nHost: a\r\n\r\n", b'"live"'),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"allow: DELETE, GET"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"route_not_found"),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b'"live"'),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b'"live"'),
        (b"GET /\xc3\xa4\xff HTTP/1.1\r\nHost: a\r\n\r\n", b" 400 "),
        (b"BREW /v1/users HTTP/1.1\r\nHost: a\r\n\r\n", b"method_not_allowed"),
        (b"get /health/live HTTP/1.1\r\nHost: a\r\n\r\n", b"method_not_allowed"),
        (b"GET /health/live HTTP/1.1\r\n" + b"Host: a\r\n" + b"a: b\r\n" * 101 + b"\r\n", b" 431 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" 400 "),
    ],
)
def test_heads_of_every_kind(connect: Connect, head: bytes, answered: bytes) -> None:
    connection = connect()
    connection.sendall(head)
    data = connection.recv(65536)
    assert data.startswith(b"HTTP/1.1 ")
    assert answered in data, data


def test_every_answer_has_a_date_and_a_length(connect: Connect) -> None:
    connection = connect()
    connection.sendall(LIVE)
    _, headers, body = read_reply(connection)
    assert headers["date"].endswith(" GMT")
    assert int(headers["content-length"]) == len(body)


def test_a_client_that_waits_to_be_told_sends_its_body(api: Api, connect: Connect) -> None:
    connection = connect()
    body = f'{{"email":"{some_email()}"}}'.encode()
    connection.sendall(request(api, "POST", "/v1/users", "Expect: 100-continue", length=len(body)))
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body)
    assert read_reply(connection)[0] == 201


def test_who_sends_a_large_body_that_is_refused_still_sees_why(api: Api, connect: Connect) -> None:
    connection = connect()
    head = request(api, "POST", "/v1/users", length=3 * limits.body_bytes_max)
    connection.sendall(head + b" " * 3 * limits.body_bytes_max)
    status, headers, body = read_reply(connection)
    assert (status, headers["connection"]) == (413, "close")
    assert b'"code":"body_too_large"' in body


def test_a_body_in_many_pieces_is_one(api: Api, connect: Connect) -> None:
    connection = connect()
    users = [{"email": some_email(), "attributes": {"x": "y" * 1_000}} for _ in range(300)]
    whole = request(api, "POST", "/v1/users:batch", body=json.dumps({"users": users}).encode())
    for start in range(0, len(whole), 10_007):
        connection.sendall(whole[start : start + 10_007])
    status, _, body = read_reply(connection)
    assert (status, [result["status"] for result in json.loads(body)["results"]]) == (200, [201] * 300)


def test_who_says_nothing_is_sent_away(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once with nothing, in the midst of a head, or after an answer; not while an answer is made."""
    monkeypatch.setattr(limits, "header_read_ms", 300)
    silent, slow, served = connect(), connect(), connect()
    slow.sendall(b"GET /health/live HTTP/1.1\r\nHo")
    served.sendall(LIVE)
    assert read_reply(served)[0] == 200
    assert [read_all(connection) for connection in (silent, slow, served)] == [b""] * 3


async def test_connections_beyond_the_bound_wait_until_one_leaves(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await asyncio.to_thread(connect)
    first.sendall(LIVE)
    assert (await asyncio.to_thread(read_reply, first))[0] == 200
    monkeypatch.setattr(limits, "connections_max", 1)
    second = await asyncio.to_thread(connect)
    second.sendall(LIVE)
    second.settimeout(0.3)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(second.recv, 1)
    monkeypatch.setattr(limits, "connections_max", 4_096)
    first.close()
    second.settimeout(10)
    assert (await asyncio.to_thread(read_reply, second))[0] == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_every_address_is_those_of_both_kinds() -> None:
    async def answer(exchange: Exchange) -> None:
        exchange.reply(200, [], exchange.path.encode())

    port = find_port(None)
    listener = Listener(answer, "::", port)
    listener.start()
    for address in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"GET /here HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n/here")
        writer.close()
    assert await listener.stop(1.0)


def test_who_ends_in_the_midst_of_a_body_is_told_so(api: Api, connect: Connect) -> None:
    connection = connect()
    connection.sendall(LIVE + request(api, "POST", "/v1/users", length=100) + b'{"email":')
    connection.shutdown(socket.SHUT_WR)
    live, cut = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert live.startswith(b"200 ")
    assert cut.startswith(b"400 ")
    assert b"connection: close" in cut
    assert b'"code":"body_cut_off"' in cut


@pytest.mark.parametrize("more", [0, 3, 5 * limits.pipelined_requests_max])
def test_who_sends_nothing_more_after_its_requests_gets_their_answers(api: Api, connect: Connect, more: int) -> None:
    connection = connect()
    body = f'{{"email":"{some_email()}"}}'.encode()
    connection.sendall(request(api, "GET", "/v1/users?limit=1") * more + request(api, "POST", "/v1/users", body=body))
    connection.shutdown(socket.SHUT_WR)
    assert [int(part[:3]) for part in read_all(connection).split(b"HTTP/1.1 ")[1:]] == [200] * more + [201]


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHo", LIVE + LIVE[:9], b"no request\r\n\r\n"])
def test_who_ends_without_a_whole_request_is_left_at_once(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    statuses = [int(part[:3]) for part in read_all(connection).split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200] * sent.startswith(LIVE) + [400] * sent.startswith(b"no request")


class Watched(Listener):
    """A listener that says when a connection is gone."""

    gone: asyncio.Event

    def left(self, connection: Connection) -> None:
        super().left(connection)
        self.gone.set()


@asynccontextmanager
async def watched(answer: Callable[[Exchange], Awaitable[None]]) -> AsyncIterator[tuple[Watched, int]]:
    listener = Watched(answer, "127.0.0.1", port := find_port(None))
    listener.gone = asyncio.Event()
    listener.start()
    try:
        yield listener, port
    finally:
        assert await listener.stop(1.0)


@pytest.mark.parametrize("closes", [False, True])
async def test_nobody_waits_for_the_news_of_a_client_that_ended(closes: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.gone()
        await exchange.gone()
        stream = exchange.stream(200, [])
        stream.send(b"nothing")
        stream.end()

    async with watched(answer) as (listener, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVE)
        if closes:
            writer.close()
        else:
            writer.write_eof()
            assert b"nothing" in await reader.read()
        await listener.gone.wait()
        writer.close()


async def test_who_ends_and_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(exchange: Exchange) -> None:
        exchange.reply(200, [], bytes(1 << 26))

    monkeypatch.setattr(limits, "header_read_ms", 300)
    async with watched(answer) as (listener, port), asyncio.timeout(10):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(LIVE * 3)
            connection.shutdown(socket.SHUT_WR)
            await listener.gone.wait()
