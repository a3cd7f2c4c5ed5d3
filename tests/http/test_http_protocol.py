"""HTTP itself: bad requests of every kind, bodies and their bounds, HEAD and OPTIONS, slow and rude clients."""

import asyncio
import gzip
import socket
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from http_api import Api, some_email

from denizen import limits
from denizen.http.routes import ROUTES

Connect = Callable[[], socket.socket]


def read_reply(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One whole reply from a bare connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise EOFError(data)
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, body


def request(api: Api, method: str, path: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {api.key}", *headers]
    if body or length is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class TestRoutesAndMethods:
    @pytest.mark.parametrize(
        "path",
        ["/", "/v2/users", "/v1/users/", "/v1/users/a/b", "/favicon.ico", "/v1//users", "//", "/v1/login-names/x/y"],
    )
    async def test_no_such_route_is_a_problem(self, api: Api, path: str) -> None:
        answer = await api("GET", path)
        assert (answer.status, answer.code) == (404, "route_not_found")

    async def test_a_wrong_method_names_the_right_ones(self, api: Api) -> None:
        answer = await api("PUT", "/v1/users")
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert (await api("BREW", "/v1/users")).code == "method_not_allowed"

    async def test_options_lists_the_methods_without_a_key(self, api: Api) -> None:
        answer = await api.with_key(None)("OPTIONS", f"/v1/users/{uuid4()}")
        assert (answer.status, answer.raw) == (204, b"")
        assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
        assert (await api("OPTIONS", "/nowhere")).code == "route_not_found"

    async def test_head_is_get_without_the_body(self, api: Api) -> None:
        user = await api.user()
        for path in (f"/v1/users/{user['id']}", "/health/live", f"/v1/users/{uuid4()}", "/nowhere"):
            head, get = await api("HEAD", path), await api("GET", path)
            assert (head.status, head.raw) == (get.status, b"")
            assert head.headers["content-length"] == get.headers["content-length"]
            assert head.headers["content-type"] == get.headers["content-type"]


class TestReplies:
    async def test_every_reply_has_the_security_headers_and_a_request_id(self, api: Api) -> None:
        for method, path in (
            ("GET", "/health/live"),
            ("GET", "/v1/users?limit=1"),
            ("GET", "/nowhere"),
            ("PUT", "/metrics"),
        ):
            answer = await api(method, path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-request-id"]

    async def test_a_request_id_is_kept_and_a_uuid_becomes_the_correlation_id(self, api: Api) -> None:
        wanted = str(uuid4())
        answer = await api("POST", "/v1/users", {"email": some_email()}, X_Request_Id=wanted)
        event = (await api("GET", f"/v1/users/{answer.json['id']}/events")).json["items"][0]
        assert answer.headers["x-request-id"] == event["correlation_id"] == wanted
        assert (await api("GET", "/nowhere", X_Request_Id="abc")).json["request_id"] == "abc"

    @pytest.mark.parametrize("given", ["a b", "x" * 129, ""])
    async def test_a_request_id_that_cannot_be_one_is_replaced(self, api: Api, given: str) -> None:
        answer = await api("GET", "/health/live", X_Request_Id=given)
        assert answer.headers["x-request-id"] not in ("", given)

    async def test_request_ids_differ(self, api: Api) -> None:
        seen = {(await api("GET", "/health/live")).headers["x-request-id"] for _ in range(50)}
        assert len(seen) == 50

    async def test_metrics_count_by_route_not_by_path(self, api: Api) -> None:
        email = some_email()
        await api("GET", f"/v1/login-names/email/{email}")
        text = (await api("GET", "/metrics")).raw.decode()
        assert 'denizen_http_requests_total{method="GET",route="/v1/login-names/{kind}/{value}",status="404"}' in text
        assert email not in text
        assert "process_resident_memory_bytes" in text

    async def test_metrics_of_other_processes_are_asked_for_by_name(self, api: Api) -> None:
        assert "denizen_http_requests_total" in (await api("GET", "/metrics?process=gateway")).raw.decode()
        assert (await api("GET", "/metrics?process=relay")).code == "process_not_here"
        assert (await api("GET", "/metrics?process=../secrets/keyring")).code == "invalid_parameter"
        assert (await api.with_key(None)("GET", "/metrics?process=relay")).code == "unauthenticated"

    async def test_health_version_and_problem_pages_are_open(self, api: Api) -> None:
        nobody = api.with_key(None)
        assert (await nobody("GET", "/health/live")).json == {"status": "live"}
        assert (await nobody("GET", "/health/ready")).json == {"status": "ready"}
        assert (await nobody("GET", "/v1/version")).json["api"] == "v1"
        page = await nobody("GET", "/problems/version_conflict")
        assert b"412 version_conflict" in page.raw
        assert (await nobody("GET", "/problems/nonsense")).code == "route_not_found"


class TestBodies:
    @pytest.mark.parametrize(
        "raw",
        [b"", b"{", b"nul", b'{"email":}', b"{'email':1}", b'{"a":1}{"b":2}', b"\xff\xfe{}", b"\xef\xbb\xbf{}",
         b'{"email":"\xff@example.org"}', b'{"email":"a","email":"b"}', b"[" * 50_000, b'{"email":"\\ud800"}',
         b"email=a%40example.org", b"\0", b'{"email":NaN}'],
    )  # fmt: skip
    async def test_what_is_not_json_is_refused(self, api: Api, raw: bytes) -> None:
        answer = await api("POST", "/v1/users", raw=raw)
        assert (answer.status, answer.code) == (400, "malformed_json")

    async def test_the_byte_of_the_error_is_told(self, api: Api) -> None:
        answer = await api("POST", "/v1/users", raw=b'{"email":"a@example.org",}')
        assert answer.json["byte_offset"] in (24, 25, 26)

    @pytest.mark.parametrize(
        "media_type",
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", "",
         "application/*", "application/merge-patch+json", "multipart/form-data; boundary=x"],
    )  # fmt: skip
    async def test_another_media_type_is_refused(self, api: Api, media_type: str) -> None:
        answer = await api("POST", "/v1/users", {"email": some_email()}, Content_Type=media_type)
        assert (answer.status, answer.code) == (415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "media_type", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"']
    )
    async def test_json_in_any_spelling_is_taken(self, api: Api, media_type: str) -> None:
        assert (await api("POST", "/v1/users", {"email": some_email()}, Content_Type=media_type)).status == 201

    @pytest.mark.parametrize("pack", [gzip.compress, bytes])
    async def test_a_body_that_says_to_be_compressed_is_refused(self, api: Api, pack: Callable[[bytes], bytes]) -> None:
        raw = pack(b'{"email":"a@example.org"}')
        answer = await api("POST", "/v1/users", raw=raw, Content_Encoding="gzip")
        assert (answer.status, answer.code) == (415, "unsupported_media_type")

    def test_a_body_without_a_type_is_refused(self, api: Api, connect: Connect) -> None:
        connection = connect()
        head = f"POST /v1/users HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {api.key}\r\nContent-Length: 2\r\n\r\n{{}}"
        connection.sendall(head.encode())
        assert read_reply(connection)[0] == 415

    def test_a_declared_body_that_is_too_large_is_refused_unread(self, api: Api, connect: Connect) -> None:
        connection = connect()
        connection.sendall(request(api, "POST", "/v1/users", length=limits.body_bytes_max + 1))
        status, headers, body = read_reply(connection)
        assert (status, headers["connection"]) == (413, "close")
        assert b'"code":"body_too_large"' in body

    def test_a_chunked_body_is_refused_for_its_end_could_not_be_told(self, api: Api, connect: Connect) -> None:
        """A body without a length could be carried out by half when its client breaks off."""
        connection = connect()
        body = b'{"email":"a@example.org"}'
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        head = request(api, "POST", "/v1/users", "Content-Type: application/json", "Transfer-Encoding: chunked")
        connection.sendall(head + chunked)
        status, headers, reply = read_reply(connection)
        assert (status, headers["connection"]) == (411, "close")
        assert b'"code":"length_required"' in reply

    async def test_a_body_at_the_bound_is_read(self, api: Api) -> None:
        raw = b'{"email":"nonsense"' + b" " * (limits.body_bytes_max - 20) + b"}"
        assert (await api("POST", "/v1/users", raw=raw)).code == "invalid"


class TestHeadsAndLines:
    async def test_a_long_uri_is_414(self, api: Api) -> None:
        answer = await api("GET", "/v1/login-names/email/" + "a" * limits.uri_chars_max)
        assert (answer.status, answer.code) == (414, "uri_too_long")
        assert (await api("GET", "/v1/users?cursor=" + "a" * limits.uri_chars_max)).code == "uri_too_long"

    async def test_large_headers_are_431(self, api: Api) -> None:
        answer = await api("GET", "/health/live", X_Large="a" * limits.header_bytes_max)
        assert (answer.status, answer.code) == (431, "headers_too_large")

    def test_huge_headers_are_431_before_the_gateway(self, api: Api, connect: Connect) -> None:
        connection = connect()
        connection.sendall(request(api, "GET", "/health/live", "X-Huge: " + "a" * 200_000))
        assert read_reply(connection)[0] == 431

    @pytest.mark.parametrize(
        "raw",
        [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
         b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
         b"GET / HTTP/1.1\r\nHost: a\r\n bad: b\r\n\r\n",
         b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    )  # fmt: skip
    def test_what_is_not_http_is_400_and_closed(self, connect: Connect, raw: bytes) -> None:
        connection = connect()
        connection.sendall(raw)
        assert read_reply(connection)[0] == 400
        assert connection.recv(10) == b""

    def test_http_1_1_needs_a_host(self, connect: Connect) -> None:
        connection = connect()
        connection.sendall(b"GET /health/live HTTP/1.1\r\n\r\n")
        status, _, body = read_reply(connection)
        assert (status, b'"code":"invalid_header"' in body) == (400, True)

    @pytest.mark.parametrize("name", ["Idempotency-Key", "If-Match"])
    def test_a_header_that_may_come_once_is_refused_twice(self, api: Api, connect: Connect, name: str) -> None:
        connection = connect()
        path = "/v1/users/01a205a0-8017-809f-b8ee-da6b47689a3c"
        connection.sendall(request(api, "PATCH", path, f'{name}: "1"', f'{name}: "2"', body=b"{}"))
        status, _, body = read_reply(connection)
        assert (status, b'"code":"invalid_header"' in body) == (400, True), body

    def test_a_meaningful_header_that_is_not_ascii_is_refused_not_ignored(self, api: Api, connect: Connect) -> None:
        connection = connect()
        connection.sendall(request(api, "POST", "/v1/users", "Idempotency-Key: \u00fc", body=b'{"email":"x"}'))
        status, _, body = read_reply(connection)
        assert (status, b'"code":"invalid_header"' in body) == (400, True), body


class TestConnections:
    def test_pipelined_requests_are_answered_in_order(self, api: Api, connect: Connect) -> None:
        connection = connect()
        paths = ["/health/live", "/nowhere", "/v1/version", f"/v1/users/{uuid4()}"]
        connection.sendall(b"".join(request(api, "GET", path) for path in paths))
        data = b""
        while data.count(b"HTTP/1.1 ") < 4 or not data.endswith(b"}"):
            data += connection.recv(65536)
        assert [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 404]

    def test_a_refused_body_does_not_disturb_the_next_request(self, api: Api, connect: Connect) -> None:
        connection = connect()
        body = b'{"email":"GET /nowhere HTTP/1.1"}' * 10
        head = f"POST /v1/users HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)
        assert read_reply(connection)[0] == 401
        try:
            connection.sendall(request(api, "GET", "/health/live"))
            assert read_reply(connection)[0] == 200
        except (EOFError, ConnectionError):
            pass  # closed instead: as good

    async def test_slow_and_stuck_clients_block_nobody(self, api: Api, connect: Connect) -> None:
        """300 connections in the middle of a request line, a header or a body; everybody else is served at once."""
        beginnings = [
            b"GET /v1/us",
            b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ",
            request(api, "POST", "/v1/users", length=1000) + b'{"email":',
        ]
        for number in range(300):
            connect().sendall(beginnings[number % 3])
        started = time.perf_counter()
        answers = await asyncio.gather(*(api("GET", "/v1/users?limit=1") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert time.perf_counter() - started < 5.0

    async def test_a_body_that_never_ends_is_given_up(self, api: Api, connect: Connect, monkeypatch) -> None:  # type: ignore[no-untyped-def]
        monkeypatch.setattr("denizen.http.requests.body_read_s", 0.2)
        connection = connect()
        connection.sendall(request(api, "POST", "/v1/users", length=1000) + b'{"email":')
        status, headers, body = await asyncio.to_thread(read_reply, connection)
        assert (status, headers["connection"]) == (408, "close")
        assert b'"code":"body_timeout"' in body

    async def test_a_cut_off_body_is_not_carried_out(self, api: Api, connect: Connect) -> None:
        """Its beginning is whole JSON by itself; only the length tells that more was meant."""
        email = some_email()
        connection = connect()
        connection.sendall(request(api, "POST", "/v1/users", length=1000) + f'{{"email":"{email}"}}'.encode())
        await asyncio.sleep(0.05)
        connection.close()
        await asyncio.sleep(0.1)
        assert (await api("GET", f"/v1/login-names/email/{email}")).status == 404

    async def test_a_client_that_leaves_does_not_undo_its_write(self, api: Api, connect: Connect) -> None:
        email, key = some_email(), uuid4().hex
        body = f'{{"email":"{email}"}}'.encode()
        connection = connect()
        connection.sendall(request(api, "POST", "/v1/users", f"Idempotency-Key: {key}", body=body))
        connection.close()
        answer = await api("POST", "/v1/users", raw=body, Idempotency_Key=key)
        assert answer.status == 201
        assert (await api("GET", f"/v1/login-names/email/{email}")).json["id"] == answer.json["id"]


async def test_no_route_answers_nonsense_with_a_server_error(api: Api) -> None:
    """Every route, with parameters and bodies that mean nothing."""
    nonsense = ["%00", "%ff", "%2e%2e", "..", "'", '"', "%F0%9F%A6%86", "a" * 300, "%E2%80%AE", "-", "null"]
    for route in ROUTES:
        for text in nonsense:
            path = route.path
            for name in ("id", "key_id", "kind", "value", "code"):
                path = path.replace(f"{{{name}}}", text)
            body = None if route.body is None else {"x": text}
            answer = await api(route.method, path, body, Idempotency_Key="a-b", If_Match='"1"')
            assert answer.status < 500, (route.name, text, answer.raw)
