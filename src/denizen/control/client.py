"""Talking to the control plane from any process of the deployment.

Every call tries the nodes in turn, beginning with the one that answered last. What needs a leader waits for one until
the caller's patience is over; maps and states come from whichever node answers, with or without a leader. A command
whose outcome is unknown is sent again: every command is harmless when applied twice.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from denizen import limits
from denizen.control import wire
from denizen.control.commands import Accepted, Command, Refusal, decode_reply, encode_command
from denizen.control.state import ControlState, decode_state
from denizen.control.wire import Answer, MoveProgress, NodeStatus, Problem, request
from denizen.errors import DenizenError, Refused, Unavailable
from denizen.sharding.bucket_map import BucketMap

Addresses = Callable[[], Mapping[int, str]]
_NOTHING_YET = 204


class ControlClient:
    """Needs no start and no stop. `addresses` tells where the nodes are now (none: there is no control plane)."""

    def __init__(
        self, addresses: Addresses, token: Callable[[], str], *, patience_s: float = limits.control_patience_s
    ) -> None:
        self._addresses = addresses
        self._token = token
        self._patience_s = patience_s
        self._preferred: int | None = None

    async def state(self, *, linearizable: bool = False) -> ControlState:
        """The state as some node knows it; `linearizable`: with everything that was acknowledged before."""
        if not linearizable:
            return decode_state((await self._ask_any("GET", wire.STATE)).body)
        return decode_state((await self._ask_leader("GET", f"{wire.STATE}?fresh=1")).body)

    async def watch(self, after_revision: int) -> tuple[int, ControlState]:
        """Wait until a state is newer than that revision; it and its revision. `Unavailable` if no node answers."""
        while True:
            answer = await self._ask_any("GET", f"{wire.WATCH}?after={after_revision}", turn=True)
            if answer.status != _NOTHING_YET:
                state = decode_state(answer.body)
                return state.revision, state

    async def watch_map(self, after_version: int) -> BucketMap:
        """Wait until there is a map newer than that version. `Unavailable` if no node answers."""
        while True:
            answer = await self._ask_any("GET", f"{wire.MAP}?after={after_version}", turn=True)
            if answer.status != _NOTHING_YET:
                return msgspec.msgpack.decode(answer.body, type=BucketMap)

    async def propose(self, command: Command) -> Accepted:
        """Have a command decided. `Refused` with the reason's code if a precondition does not hold."""
        reply = decode_reply((await self._ask_leader("POST", wire.PROPOSE, encode_command(command))).body)
        if isinstance(reply, Refusal):
            raise Refused(reply.detail, reason=reply.code)
        return reply

    async def status(self) -> list[NodeStatus]:
        """How each node is, side by side; those that do not answer too."""

        async def ask(node: int, address: str) -> NodeStatus:
            try:
                answer = await self._request(address, "GET", wire.STATUS, timeout_s=limits.probe_s)
            except DenizenError as error:
                return NodeStatus(id=node, address=address, problem=error.detail)
            return msgspec.json.decode(answer.body, type=NodeStatus)

        return list(await asyncio.gather(*(ask(*node) for node in sorted(self._addresses().items()))))

    async def progress(self) -> list[MoveProgress]:
        """How far the moves are that are carried out now; nothing if no node leads."""
        for node in await self.status():
            if node.executing:
                answer = await self._request(node.address, "GET", wire.PROGRESS)
                return msgspec.json.decode(answer.body, type=list[MoveProgress])
        return []

    # Inside

    async def _ask_leader(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Ask until a node can answer for the whole group, or the patience is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            left_s = max(deadline - loop.time(), limits.control_retry_s)
            try:
                return await self._ask_any(method, target, body, timeout_s=min(left_s, limits.control_request_s))
            except Unavailable:
                if loop.time() > deadline or not self._addresses():
                    raise
                await asyncio.sleep(limits.control_retry_s)

    async def _ask_any(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        turn: bool = False,
        timeout_s: float = limits.control_wait_s + limits.control_answer_s,
    ) -> Answer:
        """Ask each node once, until one answers. With `turn`, a node that had nothing to say is not preferred."""
        problem: DenizenError = Unavailable("there is no control plane: start the deployment with `denizen up`")
        for node, address in self._in_order():
            try:
                answer = await self._request(address, method, target, body, timeout_s=timeout_s)
            except Unavailable as error:
                problem = error
                continue
            self._preferred = None if turn and answer.status == _NOTHING_YET else node
            if self._preferred is None:
                self._preferred = self._after(node)
            return answer
        raise problem

    async def _request(
        self, address: str, method: str, target: str, body: bytes = b"", *, timeout_s: float = limits.control_request_s
    ) -> Answer:
        answer = await request(address, method, target, self._token(), body, timeout_s=timeout_s)
        if answer.status < 300:
            return answer
        try:
            problem = msgspec.json.decode(answer.body, type=Problem)
        except msgspec.DecodeError:
            problem = Problem("unknown", f"status {answer.status}")
        if answer.status >= 500:
            raise Unavailable(f"control node {address}: {problem.detail}", reason=problem.code)
        raise Refused(problem.detail, reason=problem.code)

    def _in_order(self) -> list[tuple[int, str]]:
        nodes = sorted(self._addresses().items())
        start = next((place for place, (node, _) in enumerate(nodes) if node == self._preferred), 0)
        return nodes[start:] + nodes[:start]

    def _after(self, node: int) -> int | None:
        nodes = sorted(self._addresses())
        return nodes[(nodes.index(node) + 1) % len(nodes)] if node in nodes else None
