"""The gateway: each request from its connection to its handler and back. This is the hot path; it has no layers.

    route → key → scope → rate → query → handler → reply, metrics, log line

Every way out is a reply: what is raised becomes a problem, and nothing a handler does can end the process. A client
that goes away does not stop its request: a write is finished, and its outcome kept under its idempotency key.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from time import perf_counter
from typing import Final

import structlog

from denizen.errors import Unauthenticated
from denizen.http.access_log import AccessLine, AccessLog
from denizen.http.authorization import bearer_token, require_scope
from denizen.http.connections import ClientGone, Exchange
from denizen.http.limiter import rate_headers
from denizen.http.problems import as_error, problem_reply
from denizen.http.refusals import HeadersTooLarge, InvalidHeader, UriTooLong
from denizen.http.replies import SECURITY_HEADERS, Headers, Reply, empty_reply
from denizen.http.requests import Request, parse_query
from denizen.http.route import Route
from denizen.http.router import Router
from denizen.http.routes import ROUTES
from denizen.http.services import Services
from denizen.http.streaming import Outlet, StreamReply
from denizen.limits import header_bytes_max, request_id_chars_max, uri_chars_max

_log = structlog.get_logger()

_REQUEST_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{request_id_chars_max}}}")
_MEANINGFUL: Final = ("content-type", "idempotency-key", "if-match", "if-none-match")
_UNROUTED: Final = "(none)"


class Gateway:
    """Answers requests; `answer` is called once for each."""

    def __init__(self, services: Services, log: AccessLog | None = None) -> None:
        self._services = services
        self._router = Router(ROUTES)
        self._queries = {route.name: route.query_names for route in ROUTES}
        self._log = log
        self._request_ids = _request_ids()

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        started = perf_counter()
        self._services.in_flight += 1
        request = Request(exchange, self._request_id(exchange))
        try:
            reply, code = await self._answer(exchange, request), None
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem
            reply, code = self._refuse(error, request)
        finally:
            self._services.in_flight -= 1
        headers = [*reply.headers, *SECURITY_HEADERS, ("x-request-id", request.request_id)]
        if request.bucket is not None:
            headers += rate_headers(request.bucket)
        if isinstance(reply, StreamReply):
            self._record(request, reply, perf_counter() - started, code)
            await self._stream(reply, headers, exchange)
            return
        with suppress(ClientGone):  # what it asked for is done all the same
            exchange.reply(reply.status, headers, reply.body)
        self._record(request, reply, perf_counter() - started, code)

    async def _stream(self, reply: StreamReply, headers: Headers, exchange: Exchange) -> None:
        try:
            stream = exchange.stream(reply.status, headers)
            await reply.run(Outlet(stream))
            stream.end()
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001 - its headers are sent: all that is left is to break off
            _log.error("stream_failed", exc_info=error)
            exchange.last = True

    async def _answer(self, exchange: Exchange, request: Request) -> Reply | StreamReply:
        services = self._services
        _check_headers(exchange)
        if len(request.path) + len(exchange.query) > uri_chars_max:
            raise UriTooLong(f"path and query may have at most {uri_chars_max} characters")
        if request.method == "OPTIONS":
            return empty_reply(204, [("allow", self._router.options(request.path))])
        request.route, request.params = self._router.find(request.method, request.path)
        route: Route = request.route
        if route.scope is not None:
            self._authorize(request, route.scope)
        if exchange.query:
            request.query = parse_query(exchange.query, self._queries[route.name])
        return await route.handler(services, request)

    def _authorize(self, request: Request, scope: str) -> None:
        """The key of the request, if it may do this and not too often."""
        services = self._services
        key = services.keys.check(bearer_token(request.headers.get("authorization")))
        if key is None:
            raise Unauthenticated("this key is unknown or revoked")
        request.key = key
        require_scope(key, scope)
        if key.rate_per_s is not None:
            request.bucket = bucket = services.limiter.bucket(key.id, key.rate_per_s)
            services.limiter.admit(bucket)

    def _refuse(self, error: Exception, request: Request) -> tuple[Reply, str]:
        known = as_error(error)
        if known.code == "internal":
            _log.error("unexpected_error", request_id=request.request_id, route=_route_of(request), exc_info=error)
        return problem_reply(known, request.request_id), known.code

    def _record(self, request: Request, reply: Reply | StreamReply, seconds: float, code: str | None) -> None:
        route = _route_of(request)
        method = request.method if request.route is not None or request.method == "OPTIONS" else "(other)"
        self._services.metrics.answered(route, method, reply.status, seconds)
        if self._log is not None:
            key = None if request.key is None else request.key.id
            level, ms = "error" if reply.status >= 500 else "info", round(seconds * 1e3, 3)
            line = AccessLine(
                datetime.now(UTC), level, "request", method, route, reply.status, ms, request.request_id, key, code
            )
            self._log.add(line)

    def _request_id(self, exchange: Exchange) -> str:
        """The client's `X-Request-Id` if it can be one, else a new one."""
        given = exchange.headers.get("x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return next(self._request_ids)


def _request_ids() -> Iterator[str]:
    """UUIDs of version 8: 74 random bits of this process, and a counter. Cheaper than a random one each."""
    noise = secrets.token_hex(10)
    prefix = f"{noise[:8]}-{noise[8:12]}-8{noise[12:15]}-8{noise[15:18]}"
    return (f"{prefix}-{number & 0xFFFF_FFFF_FFFF:012x}" for number in count(secrets.randbits(40)))


def _route_of(request: Request) -> str:
    return request.route.path if request.route is not None else _UNROUTED


def _check_headers(exchange: Exchange) -> None:
    values = b"".join([value for _, value in exchange.raw_headers])
    if len(values) > header_bytes_max:
        raise HeadersTooLarge(f"header fields may have at most {header_bytes_max} bytes")
    if "host" not in exchange.headers and exchange.version.minor > 0:
        raise InvalidHeader("Host", "HTTP/1.1 needs the header `Host`")
    if not values.isascii():
        _refuse_unreadable(exchange)


def _refuse_unreadable(exchange: Exchange) -> None:
    """A value that is not ASCII is as good as none, but a field that means something to us must not vanish."""
    for name in _MEANINGFUL:
        if not all(value.isascii() for value in exchange.headers.getall(name, ())):
            raise InvalidHeader(name.title(), f"`{name.title()}` must be visible ASCII characters")
