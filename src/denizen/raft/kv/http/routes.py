"""The routes under `/v1/kv`, and what all routes share: the token, problems as answers, streams of lines."""

import hashlib
import hmac
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from denizen.raft import errors as raft
from denizen.raft.kv import errors
from denizen.raft.kv.batching import translated
from denizen.raft.kv.http import bodies
from denizen.raft.kv.http.protocol import PROBLEM, Connection, Head, HttpRequest, response
from denizen.raft.kv.model import (
    CloseSession,
    Compact,
    GrantLease,
    KeepAlive,
    OpenSession,
    Operation,
    PutResult,
    RevokeLease,
)
from denizen.raft.kv.service import KeyValueService
from denizen.raft.kv.watching import WatchQuery

Route = Callable[[HttpRequest, Connection], Awaitable[bytes | None]]
T = TypeVar("T")

_log = logging.getLogger(__name__)
json = msgspec.json.Encoder().encode
_decode_put = msgspec.json.Decoder(bodies.PutBody).decode

_STATUS_OF_GRPC = {3: 400, 5: 404, 8: 429, 9: 400, 11: 400, 14: 503, 16: 401}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
PUBLIC = frozenset({"/v1/kv/health", "/version", "/v3/auth/authenticate"})


def client_token(secret: bytes) -> str:
    """Return the token that clients of a cluster show; who has it cannot speak as a node of the cluster."""
    return hmac.new(secret, b"denizen raft key-value client token", hashlib.sha256).hexdigest()


def body_of(request: HttpRequest, type_: type[T]) -> T:
    """Return the body decoded, or raise `Malformed` naming the field."""
    try:
        return msgspec.json.decode(request.body or b"{}", type=type_)
    except msgspec.DecodeError as error:
        raise errors.Malformed(f"the body is not what this route takes: {error}") from None


def ok(answer: Any) -> bytes:
    return response(200, json(answer))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def stream(connection: Connection, lines: AsyncGenerator[Any, None]) -> None:
    """Send each line as JSON as it comes; an error after the first line is a last line with `error`."""
    started = False
    try:
        async with aclosing(lines):
            async for line in lines:
                if not started:
                    started = True
                    await connection.send(STREAM_HEAD)
                await connection.send(chunk(json(line) + b"\n"))
    except errors.KeyValueError as error:
        if not started:
            raise
        await connection.send(chunk(json({"error": error.problem()}) + b"\n"))
    await connection.send(b"0\r\n\r\n")


class Dispatcher:
    """Finds the route of a request, checks the token, and renders errors as problems."""

    def __init__(self, token: str, routes: dict[tuple[str, str], Route]) -> None:
        self._token = token.encode()
        self._routes = routes

    async def __call__(self, request: HttpRequest, connection: Connection) -> bytes | None:
        head = request.head
        try:
            route = self._routes.get((head.method, head.path))
            if route is None:
                raise errors.NoSuchRoute(f"there is no {head.method} {head.path}")
            if head.path not in PUBLIC:
                self._authenticate(head)
            return await route(request, connection)
        except errors.KeyValueError as error:
            return self.problem(head.path, error)
        except raft.RaftError as error:
            return self.problem(head.path, translated(error))
        except ConnectionResetError:
            return None
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the traceback
            _log.exception("a defect met while answering %s %s", head.method, head.path)
            if connection.streaming:
                return None
            return self.problem(head.path, errors.KeyValueError("a defect of ours; the node's log has the details"))

    def knows(self, head: Head) -> bool:
        """Tell whether a request shows the token."""
        given = head.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token)

    def _authenticate(self, head: Head) -> None:
        if not self.knows(head):
            raise errors.Unauthenticated("send the cluster's client token: Authorization: Bearer …")

    @staticmethod
    def problem(path: str, error: errors.KeyValueError) -> bytes:
        if path.startswith("/v3/"):
            code, message = error.as_etcd()
            return response(_STATUS_OF_GRPC.get(code, 500), json({"error": message, "message": message, "code": code}))
        return response(error.status, json(error.problem()), PROBLEM)


class KeyRoutes:
    """Reading and writing keys, leases, sessions, watches."""

    def __init__(self, service: KeyValueService) -> None:
        self._service = service

    def routes(self) -> dict[tuple[str, str], Route]:
        posts: dict[str, Route] = {
            "put": self.put,
            "range": self.range,
            "delete": self._writer(bodies.DeleteBody),
            "txn": self._writer(bodies.TxnBody),
            "watch": self.watch,
            "compact": self._simple(bodies.CompactBody, lambda body: Compact(body.revision)),
            "lease/grant": self._simple(bodies.GrantBody, lambda body: GrantLease(body.ttl_s, body.id)),
            "lease/keepalive": self._simple(bodies.LeaseBody, lambda body: KeepAlive(body.id)),
            "lease/revoke": self._simple(bodies.LeaseBody, lambda body: RevokeLease(body.id)),
            "session/open": self._simple(bodies.NoBody, lambda _: OpenSession()),
            "session/close": self._simple(bodies.SessionBody, lambda body: CloseSession(body.session)),
        }
        routes = {("POST", f"/v1/kv/{name}"): route for name, route in posts.items()}
        return routes | {("GET", "/v1/kv/leases"): self.leases}

    async def put(self, request: HttpRequest, _: Connection) -> bytes:
        try:
            body = _decode_put(request.body)
        except msgspec.DecodeError as error:
            raise errors.Malformed(f"the body is not what this route takes: {error}") from None
        result = await self._service.submit(body.operation(), body.session, body.sequence)
        if isinstance(result, PutResult) and result.previous is None:
            return response(200, b'{"revision":%d}' % result.revision)
        return ok(bodies.result_json(result))

    async def range(self, request: HttpRequest, _: Connection) -> bytes:
        body = body_of(request, bodies.RangeBody)
        result = await self._service.range(body.operation(), linearizable=not body.local)
        return ok(bodies.result_json(result))

    async def watch(self, request: HttpRequest, connection: Connection) -> None:
        body = body_of(request, bodies.WatchBody)
        key, end = body.bounds()
        query = WatchQuery(key, end, body.from_revision, body.puts, body.deletes)
        await stream(connection, self._watch_lines(query, previous=body.previous))

    async def _watch_lines(self, query: WatchQuery, *, previous: bool) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._service.watch(query)) as watch:
            async for changes in watch:
                events = [bodies.event_json(event, previous=previous) for event in changes.events]
                yield {"revision": changes.revision, "events": events}

    async def leases(self, _: HttpRequest, __: Connection) -> bytes:
        await self._service.confirm()
        store = self._service.store
        return ok({"revision": store.revision, "leases": [self._lease(id) for id in sorted(store.leases)]})

    def _lease(self, id: int) -> dict[str, Any]:
        store, remaining = self._service.store, self._service.lease_remaining_s(id)
        facts: dict[str, Any] = {"id": id, "ttl_s": store.leases[id].ttl_s}
        if remaining is not None:
            facts["remaining_s"] = round(remaining, 3)
        return facts | {"keys": [dict([bodies.named("key", key)]) for key in store.lease_keys(id)]}

    def _writer(self, type_: type[bodies.DeleteBody] | type[bodies.TxnBody]) -> Route:
        async def write(request: HttpRequest, _: Connection) -> bytes:
            body = body_of(request, type_)
            return ok(bodies.result_json(await self._service.submit(body.operation(), body.session, body.sequence)))

        return write

    def _simple(self, type_: type[T], operation_of: Callable[[T], Operation]) -> Route:
        async def submit(request: HttpRequest, _: Connection) -> bytes:
            body = body_of(request, type_)
            session, sequence = (body.session, body.sequence) if isinstance(body, bodies.Sessioned) else (0, 0)
            return ok(bodies.result_json(await self._service.submit(operation_of(body), session, sequence)))

        return submit
