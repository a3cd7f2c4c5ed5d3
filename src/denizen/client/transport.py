"""Sending requests, and repeating those that may be repeated.

A write carries an idempotency key, drawn once a call, so every attempt is the same request to the gateway and it
happens once. If the last attempt of a write broke off after it was sent, nobody here can know: `OutcomeUnknown`, with
the key in its facts. A request without such a key that changes something (`repeatable=False`) is sent again only if
it was refused.
"""

import asyncio
import io
import random
from collections.abc import Iterator, Mapping
from math import isfinite
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from denizen.client.errors import Invalid, OutcomeUnknown, Problem, Unreachable, problem_from
from denizen.client.retrying import RetryPolicy
from denizen.errors import BadConfiguration

_LARGE_BODY_BYTES: Final = 1 << 20  # aiohttp wants larger ones as a file

_encode: Final = msgspec.json.Encoder().encode


class Answer(Struct):
    """A success: its body and header fields."""

    raw: bytes
    headers: Mapping[str, str]


class Call(Struct, frozen=True):
    """One request. `path` is percent-encoded; `key` the idempotency key of a write."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    key: str | None = None
    repeatable: bool = True


class Transport:
    """Connections to one gateway."""

    def __init__(self, url: str, key: str | None, retries: RetryPolicy, timeout_s: float) -> None:
        self._url = _checked_url(url)
        self._headers = {"User-Agent": "denizen-client", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {_checked_key(key)}"
        self._retries = retries
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, call: Call) -> Answer:
        """The answer of a success; else the `Problem` of the last attempt."""
        attempt, maybe_done = 0, False
        while True:
            attempt += 1
            connected = asyncio.Event()
            try:
                return await self._send_once(call, connected)
            except Problem as problem:
                failure, may_repeat = problem, problem.retryable
                maybe_done = maybe_done or isinstance(problem, OutcomeUnknown)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if connected.is_set():
                    failure, may_repeat = self._broken_off(call, error), call.repeatable
                    maybe_done = maybe_done or call.key is not None or not call.repeatable
                else:  # nothing was sent
                    failure, may_repeat = Unreachable(f"{self._url} does not answer{_reason(error)}"), True
            retry_after = failure.facts.get("retry_after_s")
            wait_s = self._retries.wait_s(attempt, retry_after, random.random) if may_repeat else None
            if wait_s is None:
                raise _last_word(failure, call, maybe_done and may_repeat)
            await asyncio.sleep(wait_s)

    async def _send_once(self, call: Call, connected: asyncio.Event) -> Answer:
        headers = {**self._headers, **call.headers}
        data: Any = None
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            data = encode(call.body)
            data = io.BytesIO(data) if len(data) > _LARGE_BODY_BYTES else data
        url = URL(self._url + call.path, encoded=True).with_query(dict(call.query))
        async with self._open().request(
            call.method, url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=connected
        ) as reply:
            raw = await reply.read()
            if reply.status >= 300:
                raise problem_from(reply.status, raw)
            return Answer(raw, reply.headers)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_connected)
            tracing.on_connection_reuseconn.append(_connected)
            self._session = aiohttp.ClientSession(timeout=self._timeout, trace_configs=[tracing])
        return self._session

    def _broken_off(self, call: Call, error: Exception) -> Problem:
        what = "did not answer in time" if isinstance(error, TimeoutError) else f"broke off: {error}"
        if call.key is None and call.repeatable:
            return Unreachable(f"{self._url} {what}")
        return OutcomeUnknown(f"{self._url} {what}; the write may or may not have happened")


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Note that a request has its connection: from now on it may be sent."""
    context.trace_request_ctx.set()


def encode(value: Any) -> bytes:
    """The value as JSON; `Invalid` if JSON has no such value: infinity would go out as null, which clears a field."""
    try:
        raw = _encode(value)
        field = next(_not_finite(msgspec.to_builtins(value)), None) if b"null" in raw else None
    except (UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"the values cannot be sent as JSON: {error}") from None
    if field is not None:
        detail = f"`{field}` must be a finite number"
        raise Invalid(detail, errors=[{"field": field, "code": "wrong_value", "detail": detail}])
    return raw


def _not_finite(value: Any, path: str = "") -> Iterator[str]:
    """Where the value has numbers that JSON does not know."""
    if isinstance(value, float) and not isfinite(value):
        yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _not_finite(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")


def _checked_url(url: str) -> str:
    try:
        parts = URL(url)
        possible = parts.scheme in ("http", "https") and bool((parts.host or "").encode("idna")) and parts.port != 0
    except ValueError:
        possible = False
    if not possible or not url.isprintable() or any(sign in url for sign in " @?#"):
        raise BadConfiguration(f"{url!r} is no address of a gateway: it must be such as http://127.0.0.1:8080")
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise BadConfiguration("the API key has a character that no key has: give it as it was shown, and nothing else")
    return key


def _reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    text = getattr(cause, "strerror", None) or str(cause)
    return f": {text or 'no connection in time'}"


def _last_word(failure: Problem, call: Call, maybe_done: bool) -> Problem:
    """What to raise: while any attempt may have happened, a later failure to reach the gateway does not undo that."""
    if not maybe_done:
        return failure
    unknown = OutcomeUnknown(failure.detail, **{**failure.facts, "idempotency_key": call.key})
    unknown.__cause__ = failure
    return unknown
