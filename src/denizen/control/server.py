"""A control node's internal API: HTTP on loopback, for the deployment's own processes.

    GET  /v1/map?after=V        the map, as soon as its version is above V (long poll; 204 if there is none in time)
    GET  /v1/watch?after=R      the whole state, as soon as its revision is above R (the same)
    GET  /v1/state[?fresh=1]    the state as it is here; fresh: with all that was acknowledged before
    POST /v1/propose            a command; the reply of the state machine
    GET  /v1/status, /v1/progress   how this node is, and how far its moves are (JSON)

Maps and states come from what this node has applied, so they are there when the group has no leader. Every request
shows the clients' token; bodies, connections and waiting requests are bounded.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import msgspec
import structlog

from denizen import limits
from denizen.control import wire
from denizen.control.commands import decode_command, encode_reply
from denizen.control.node import ControlNode
from denizen.control.state import encode_state
from denizen.raft import RaftError
from denizen.raft.kv.http.protocol import Connection, Head, HttpRequest, response
from denizen.raft.kv.http.server import HttpServer

_log = structlog.get_logger()
_PACKED = b"application/msgpack"
_STATUS = {
    "no_leader": 503,
    "outcome_unknown": 503,
    "overloaded": 503,
    "stopped": 503,
    "not_member": 503,
    "too_large": 413,
    "command_failed": 422,
}
Answer = Awaitable[bytes]


class ControlServer:
    """Serves one node to its clients. Start it after the node; stop it before."""

    def __init__(self, node: ControlNode) -> None:
        self._node = node
        self._token = wire.client_token(node.plan.secret).encode()
        self._http = HttpServer(self._handle, self._knows)
        self._waiting = 0
        self._packed_map: tuple[int, bytes] = (0, b"")  # the last one that was asked for, for all who wait for it
        self._routes: dict[tuple[str, str], Callable[[HttpRequest], Answer]] = {
            ("GET", wire.STATE): self._state,
            ("GET", wire.WATCH): self._watch,
            ("GET", wire.MAP): self._map,
            ("POST", wire.PROPOSE): self._propose,
            ("GET", wire.STATUS): self._status,
            ("GET", wire.PROGRESS): self._progress,
        }

    async def start(self) -> None:
        """Listen."""
        host, _, port = self._node.plan.address.rpartition(":")
        await self._http.start(host.strip("[]"), int(port))

    async def stop(self) -> None:
        """Answer who waits, then close."""
        self._node.release()
        await self._http.stop()

    def _knows(self, head: Head) -> bool:
        given = head.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self._token)

    async def _handle(self, request: HttpRequest, _: Connection) -> bytes:
        head = request.head
        if not self._knows(head):
            return _problem(401, "unauthenticated", "send the deployment's control token: Authorization: Bearer …")
        route = self._routes.get((head.method, head.path))
        if route is None:
            return _problem(404, "no_such_route", f"there is no {head.method} {head.path}")
        try:
            return await route(request)
        except RaftError as error:
            return _problem(_STATUS.get(error.code, 500), error.code, error.detail)
        except ValueError as error:
            return _problem(400, "malformed", str(error))
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the traceback
            _log.exception("control_defect", path=head.path)
            return _problem(500, "internal", "a defect of ours; the node's log has the details")

    async def _state(self, request: HttpRequest) -> bytes:
        fresh = _parameter(request, "fresh") > 0
        return _packed(encode_state(await (self._node.confirm() if fresh else self._node.known())))

    async def _watch(self, request: HttpRequest) -> bytes:
        after = _parameter(request, "after")
        await self._node.known()
        await self._until(lambda: self._node.state.revision > after)
        state = self._node.state
        return _packed(encode_state(state)) if state.revision > after else _nothing()

    async def _map(self, request: HttpRequest) -> bytes:
        after = _parameter(request, "after")
        await self._until(lambda: self._map_version() > after)
        found = self._node.state.map
        if found is None or found.version <= after:
            return _nothing()
        if self._packed_map[0] != found.version:
            self._packed_map = (found.version, _packed(msgspec.msgpack.encode(found)))
        return self._packed_map[1]

    async def _propose(self, request: HttpRequest) -> bytes:
        try:
            command = decode_command(request.body)
        except msgspec.DecodeError as error:
            raise ValueError(f"the body is no command: {error}") from None
        return _packed(encode_reply(await self._node.propose(command)))

    async def _status(self, _: HttpRequest) -> bytes:
        return response(200, msgspec.json.encode(self._node.status()))

    async def _progress(self, _: HttpRequest) -> bytes:
        return response(200, msgspec.json.encode(self._node.progress()))

    def _map_version(self) -> int:
        found = self._node.state.map
        return found.version if found else 0

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for changes until the condition holds, this node stops, or it is time to answer."""
        if self._waiting >= limits.control_watches_max:
            raise RuntimeError(f"{self._waiting} requests wait already")
        loop = asyncio.get_running_loop()
        end = loop.time() + limits.control_wait_s
        self._waiting += 1
        try:
            while not condition() and loop.time() < end and not self._node.stopping:
                await self._node.changed(self._node.state.revision, end - loop.time())
        finally:
            self._waiting -= 1


def _parameter(request: HttpRequest, name: str) -> int:
    values = parse_qs(request.head.query).get(name, ["0"])
    return int(values[0])


def _packed(body: bytes) -> bytes:
    return response(200, body, _PACKED)


def _nothing() -> bytes:
    return response(204, b"", _PACKED)


def _problem(status: int, code: str, detail: str) -> bytes:
    return response(status, msgspec.json.encode(wire.Problem(code, detail)), b"application/problem+json")
