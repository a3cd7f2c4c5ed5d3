"""A client of the key-value service: finds a node that answers, repeats what may be repeated, follows watches.

What certainly had no effect (no connection, no leader, a full queue) is tried again at the next node until the time is
over. A write whose answer was lost is repeated only inside a session, where the cluster applies it once; without one it
is reported as `OutcomeUnknown`. Keys and values are text or bytes; answers tell those that are no UTF-8 as
`key_base64` and `value_base64`. A `Session` has one write under way at a time; use several for more.
"""

import asyncio
import io
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
import msgspec

from denizen.raft.kv import errors
from denizen.raft.kv.limits import BODY_BYTES_MAX

Data = str | bytes

_PAUSE_S = 0.05
_AT_ONCE_BYTES = 256 * 1024
_NOT_STARTED = ("no_leader", "overloaded", "unavailable", "not_a_member")
_READS = frozenset({"range", "status", "leases", "health", "metrics"})


class KeyValueClient:
    """Talks to any of `endpoints` (URLs of nodes) with the cluster's client token. Use as `async with`."""

    def __init__(self, endpoints: Sequence[str], token: str, *, timeout_s: float = 10.0, try_s: float = 6.0) -> None:
        if not endpoints:
            raise ValueError("a client needs the URL of at least one node")
        self.endpoints = list(endpoints)
        self._timeout_s = timeout_s
        self._try_s = try_s
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http: aiohttp.ClientSession | None = None
        self._preferred = 0

    async def __aenter__(self) -> Self:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(_connected)
        tracing.on_connection_reuseconn.append(_connected)
        self._http = aiohttp.ClientSession(
            headers=self._headers, connector=aiohttp.TCPConnector(limit=0), trace_configs=[tracing]
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    # --- operations --------------------------------------------------------------------------------------------------

    async def put(self, key: Data, value: Data, **more: Any) -> dict[str, Any]:
        """Set a key; `more` are fields of the route's body, such as `lease` or `return_previous`."""
        return await self.call("put", _put(key, value, more))

    async def get(self, key: Data, **more: Any) -> dict[str, Any] | None:
        """Return a key's facts, or None when it does not exist. Linearizable unless `local=True`."""
        kvs = (await self.range(key, **more))["kvs"]
        return dict(kvs[0]) if kvs else None

    async def range(self, key: Data, **more: Any) -> dict[str, Any]:
        """Read a range: a key, or with `end` or `prefix` several."""
        return await self.call("range", {**_named("key", key), **more})

    async def delete(self, key: Data, **more: Any) -> dict[str, Any]:
        """Delete a key, or with `end` or `prefix` several; `deleted` tells how many there were."""
        return await self.call("delete", {**_named("key", key), **more})

    async def txn(self, compare: list[Any], success: list[Any], failure: list[Any] | None = None, **more: Any) -> Any:
        """Do the steps of `success` if all of `compare` hold, else those of `failure`; `succeeded` tells which."""
        return await self.call("txn", {"compare": compare, "success": success, "failure": failure or [], **more})

    async def status(self, endpoint: str) -> dict[str, Any]:
        """Return what one node tells about itself."""
        return await self._once(endpoint, "GET", "status", None)

    async def ask(self, endpoint: str, route: str, body: Any) -> dict[str, Any]:
        """Call a route at one node, once."""
        return await self._once(endpoint, "POST", route, body)

    async def open_session(self) -> "Session":
        """Begin a session, in which a write whose answer is lost can be repeated safely."""
        return Session(self, (await self.call("session/open", {}, repeat=True))["session"])

    async def call(self, route: str, body: Any, *, method: str = "POST", repeat: bool | None = None) -> dict[str, Any]:
        """Call a route at any node; raises the errors of `kv.errors`.

        `repeat` says that a try whose answer was lost may be made again (by default: reads, and nothing else).
        """
        repeat = route in _READS if repeat is None else repeat
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout_s
        refusing_s = [0.0] * len(self.endpoints)  # a try with less time than that would only lose its answer
        failure: errors.KeyValueError = errors.NoLeader("no node was tried")
        while min(refusing_s) < deadline - clock():
            for offset in range(len(self.endpoints)):
                at = (self._preferred + offset) % len(self.endpoints)
                began = clock()
                if deadline - began <= refusing_s[at]:
                    continue
                try:
                    answer = await self._once(
                        self.endpoints[at], method, route, body, min(deadline - began, self._try_s)
                    )
                except errors.KeyValueError as error:
                    if error.code in _NOT_STARTED:
                        refusing_s[at] = clock() - began
                    elif not (repeat and error.retryable):
                        raise
                    if not isinstance(failure, errors.OutcomeUnknown):  # no later try tells what became of that one
                        failure = error
                    continue
                self._preferred = at
                return answer
            await asyncio.sleep(_PAUSE_S)
        raise failure

    async def watch(self, key: Data, *, from_revision: int = 0, **more: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Yield events in order, each once, going on at another node when one is lost.

        Each event has its `mod_revision`. Raises `CompactedRevision` when what follows is forgotten already.
        """
        for at in itertools.count(self._preferred):
            endpoint = self.endpoints[at % len(self.endpoints)]
            body = {**_named("key", key), "from_revision": from_revision, **more}
            try:
                async with self._watch_at(endpoint, body) as lines:
                    async for line in lines:
                        if "error" in line:
                            raise _error(line["error"])
                        for event in line["events"]:
                            yield event
                        from_revision = line["revision"] + 1
            except errors.KeyValueError as error:
                if error.code not in _NOT_STARTED and not error.retryable:
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(_PAUSE_S)

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _once(
        self, endpoint: str, method: str, route: str, body: Any, timeout_s: float | None = None
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._try_s)
        encoded = b"" if body is None else msgspec.json.encode(body)
        if len(encoded) > BODY_BYTES_MAX:
            raise errors.TooLarge(f"the request has {len(encoded)} bytes, at most {BODY_BYTES_MAX} may be")
        data = io.BytesIO(encoded) if len(encoded) > _AT_ONCE_BYTES else encoded  # aiohttp sends it in pieces
        connected = asyncio.Event()
        try:
            async with self._session().request(
                method, f"{endpoint}/v1/kv/{route}", data=data, timeout=timeout, trace_request_ctx=connected
            ) as answer:
                content = await answer.read()
                return _decoded(answer.status, content)
        except aiohttp.ClientConnectorError as error:
            raise errors.NoLeader(f"{endpoint} does not answer: {error.strerror or error}") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            if not connected.is_set():  # nothing was sent
                raise errors.NoLeader(f"{endpoint} does not answer: no connection in time") from None
            kind = errors.TimedOut if route in _READS else errors.OutcomeUnknown
            raise kind(f"the answer of {endpoint} was lost: {type(error).__name__} {error}".rstrip()) from None

    @asynccontextmanager
    async def _watch_at(self, endpoint: str, body: Any) -> AsyncGenerator[AsyncGenerator[dict[str, Any], None], None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=30)
        url = f"{endpoint}/v1/kv/watch"
        async with self._session().post(url, data=msgspec.json.encode(body), timeout=timeout) as answer:
            if answer.status != 200:
                _decoded(answer.status, await answer.read())

            async def lines() -> AsyncGenerator[dict[str, Any], None]:
                rest = b""
                async for part in answer.content.iter_any():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        yield msgspec.json.decode(line)

            yield lines()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("use the client as `async with KeyValueClient(…) as client`")
        return self._http


async def _connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Note that a request has its connection: from now on it may be sent."""
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.set()


class Session:
    """Writes that are applied once, however often their answers are lost. One at a time; others wait."""

    def __init__(self, client: KeyValueClient, id: int) -> None:
        self.id = id
        self._client = client
        self._sequence = 0
        self._lock = asyncio.Lock()

    async def call(self, route: str, body: dict[str, Any], *, sequence: int | None = None) -> dict[str, Any]:
        """Call `put`, `delete`, `txn` or a lease's route, repeating it until its outcome is known.

        When the time is over before that (`OutcomeUnknown`), go on repeating the same call with
        `sequence=error.facts["sequence"]`.
        """
        async with self._lock:
            if sequence is None:
                self._sequence += 1
                sequence = self._sequence
            try:
                return await self._client.call(route, {**body, "session": self.id, "sequence": sequence}, repeat=True)
            except errors.OutcomeUnknown as error:
                error.facts["sequence"] = sequence
                raise

    async def put(self, key: Data, value: Data, **more: Any) -> dict[str, Any]:
        """Set a key; `more` are fields of the route's body."""
        return await self.call("put", _put(key, value, more))


def _named(name: str, data: Data) -> dict[str, Data]:
    """Return the field that carries text, or bytes (which JSON takes as base64)."""
    return {name: data} if isinstance(data, str) else {f"{name}_base64": data}


def _put(key: Data, value: Data, more: dict[str, Any]) -> dict[str, Any]:
    return {**_named("key", key), **_named("value", value), **more}


def _decoded(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(content)
    except msgspec.DecodeError:  # of a proxy, which cannot tell what became of the request
        raise aiohttp.ClientPayloadError(f"status {status}, {content[:200].decode(errors='replace')!r}") from None
    if status != 200:
        raise _error(answer)
    return dict(answer)


def _error(problem: dict[str, Any]) -> errors.KeyValueError:
    facts = {k: v for k, v in problem.items() if k not in {"type", "title", "status", "code", "detail", "retryable"}}
    return errors.error_of(problem.get("code", "internal"), problem.get("detail", "no detail"), **facts)
