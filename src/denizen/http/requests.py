"""One request as handlers see it: parameters checked, body read within bounds, precondition and context parsed.

It takes from the exchange only what is asked for: a read by id touches two header fields.
"""

import asyncio
import re
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from asyncpg.pgproto.pgproto import UUID as WireUUID  # the same as `uuid.UUID`, made ten times as fast
from multidict import CIMultiDictProxy

from denizen.errors import Invalid, UserNotFound
from denizen.http.connections import ClientGone, Exchange
from denizen.http.etags import expected_version
from denizen.http.idempotency import check_key, fingerprint
from denizen.http.json_bodies import decode_json
from denizen.http.limiter import TokenBucket
from denizen.http.misfits import misfit
from denizen.http.refusals import (
    BodyCutOff,
    BodyTimeout,
    BodyTooLarge,
    InvalidHeader,
    InvalidParameter,
    LengthRequired,
    UnsupportedMediaType,
)
from denizen.limits import body_read_s
from denizen.service import Context
from denizen.service.keys import KeyInfo
from denizen.sharding.ids import parse_user_id

T = TypeVar("T")

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Request:
    """A request on its way to a handler."""

    __slots__ = ("_exchange", "bucket", "headers", "key", "method", "params", "path", "query", "request_id", "route")

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        self._exchange = exchange
        self.method = exchange.method
        self.path = exchange.path
        self.headers = exchange.headers
        self.request_id = request_id
        self.params: Mapping[str, str] = {}
        self.query: Mapping[str, str] = {}
        self.key: KeyInfo | None = None
        self.bucket: TokenBucket | None = None
        self.route: Any = None

    def gone(self) -> Awaitable[None]:
        """Comes to its end when the client goes away."""
        return self._exchange.gone()

    # Path and query

    def user_id(self) -> UUID:
        """The user id in the path; what is none names no user."""
        try:
            return parse_user_id(self.params["id"])
        except Invalid as error:
            raise UserNotFound("there is no user with this id") from error

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from the query."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
            raise InvalidParameter(name, "integer", f"`{name}` must be a whole number from {low} to {high}")
        return int(text)

    def time(self, name: str) -> datetime:
        """A time from the query, RFC 3339 with its offset."""
        try:
            value = msgspec.convert(self.query[name].replace(" ", "+"), datetime)  # a bare `+` in a query is a space
            if value.tzinfo is not None:
                return value.astimezone(UTC)
        except (msgspec.ValidationError, OverflowError):
            pass
        what = "a version or an RFC 3339 time" if name == "as_of" else "an RFC 3339 time"
        detail = f"`{name}` must be {what} such as 2026-01-31T12:00:00Z"
        raise InvalidParameter(name, "time", detail)

    # Body

    async def body(self) -> Any:
        """The JSON body: in this route's media types and size, well-formed, no member twice."""
        return decode_json(await self.raw_body())

    async def optional_body(self) -> Any:
        """The JSON body, or an empty object if there is none."""
        raw = await self.raw_body(optional=True)
        return decode_json(raw) if raw else {}

    async def document(self, shape: type[T]) -> T:
        """The body as a document of this shape; `Invalid` names the field that does not fit."""
        return as_document(await self.body(), shape)

    async def raw_body(self, *, optional: bool = False) -> bytes:
        """The bytes of the body."""
        declared = self.headers.get("content-length")
        if optional and (declared == "0" or (declared is None and self.headers.get("transfer-encoding") is None)):
            return b""
        self._check_media_type()
        if declared is None:
            if self.headers.get("transfer-encoding") is None:
                return b""
            raise LengthRequired("send the body with `Content-Length`, not in chunks")
        limit: int = self.route.body_bytes_max
        if int(declared) > limit:
            raise BodyTooLarge(f"the body may have at most {limit} bytes", limit_bytes=limit)
        raw = self._exchange.received()
        if raw is None:
            raw = await self._rest_of_body()
        if len(raw) != int(declared):
            raise BodyCutOff("the body ended before its declared length")
        return raw

    async def _rest_of_body(self) -> bytes:
        try:
            async with asyncio.timeout(body_read_s):
                return await self._exchange.body()
        except TimeoutError:
            raise BodyTimeout(f"the body did not arrive within {body_read_s:g} seconds") from None
        except ClientGone:
            raise BodyCutOff("the client left before the end of the body") from None

    def _check_media_type(self) -> None:
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("send the body as it is, without `Content-Encoding`")
        given = self.headers.get("content-type")
        if given in self.route.media_types:
            return
        media_type, _, parameters = (given or "").partition(";")
        charset = parameters.strip().lower().replace('"', "")
        if media_type.strip().lower() not in self.route.media_types or charset not in ("", "charset=utf-8"):
            raise UnsupportedMediaType(f"this route takes {' or '.join(self.route.media_types)}, in UTF-8")

    # Preconditions and who asks

    def expected_version(self) -> int | None:
        """The version that `If-Match` asks for."""
        return expected_version(single_header(self.headers, "if-match"))

    def idempotency_key(self) -> str | None:
        """The value of `Idempotency-Key`."""
        key = single_header(self.headers, "idempotency-key")
        return None if key is None else check_key(key)

    @property
    def actor(self) -> str:
        """Who asks, as the history says it."""
        return f"key:{self.key.id}" if self.key is not None else "anonymous"

    @property
    def correlation_id(self) -> UUID | None:
        """The request id, if it is a UUID."""
        return WireUUID(self.request_id) if _UUID.fullmatch(self.request_id) else None

    def context(self, body: Any = None) -> Context:
        """The context of a command: actor, correlation, idempotency key scoped by API key, fingerprint."""
        key = self.idempotency_key()
        if key is None or self.key is None:
            return Context(self.actor, self.correlation_id)
        return Context(
            self.actor,
            self.correlation_id,
            f"{self.key.id}:{key}",
            fingerprint(self.method, self.path, body),
        )


def as_document(value: Any, shape: type[T]) -> T:
    """The decoded JSON as this shape; `Invalid` names the field that does not fit."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise misfit(str(error)) from None


def json_object(value: Any) -> dict[str, Any]:
    """The decoded JSON, which must be an object; else `Invalid`."""
    if isinstance(value, dict):
        return value
    return as_document(value, dict[str, Any])


def parse_query(text: str, allowed: frozenset[str]) -> Mapping[str, str]:
    """The query's parameters; `InvalidParameter` for unknown and repeated ones."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidParameter("", "malformed", "the query is not of the form name=value&name=value") from error
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            names = ", ".join(f"`{known}`" for known in sorted(allowed)) or "none"
            raise InvalidParameter(name, "unknown", f"this route has no query parameter `{name[:60]}`; it has {names}")
        if name in query:
            raise InvalidParameter(name, "repeated", f"`{name}` is there twice")
        query[name] = value
    return query


def single_header(headers: "CIMultiDictProxy[str]", name: str) -> str | None:
    """A header field that may come once only."""
    if name not in headers:
        return None
    values = [value for value in headers.getall(name) if value.isascii()]
    if len(values) > 1:
        raise InvalidHeader(name.title(), f"`{name.title()}` is there more than once")
    return values[0] if values else None
