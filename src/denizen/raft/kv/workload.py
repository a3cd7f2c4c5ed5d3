"""Real clients that write down what they see: for tests and the demo, which check the history afterwards.

Each client works on a few shared keys: puts of values that are unique, reads, compare-and-set transactions, deletes.
Half of the clients write in sessions and repeat a write until its outcome is known; the others report a lost answer as
unknown.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

from denizen.raft.kv.client import KeyValueClient, Session
from denizen.raft.kv.errors import KeyValueError
from denizen.raft.linearizability import Kind, Operation

_NOT_DONE = frozenset({"no_leader", "overloaded", "unavailable", "not_a_member"})


class Workload:
    """Clients at work until they are stopped; `history` is what they saw, `writes` when each write succeeded."""

    def __init__(
        self,
        endpoints: Sequence[str],
        token: str,
        *,
        clients: int = 6,
        keys: int = 5,
        pause_s: float = 0.002,
        try_s: float = 1.0,
        seed: int = 1,
    ) -> None:
        self._endpoints = list(endpoints)
        self._token = token
        self._clients = clients
        self._keys = [f"key/{number}" for number in range(keys)]
        self._pause_s = pause_s
        self._try_s = try_s
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.history: list[Operation] = []
        self.writes: list[float] = []

    async def __aenter__(self) -> "Workload":
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> list[Operation]:
        """Let every client finish its operation; return the history. Raises what a client met unexpectedly."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks = []
        return self.history

    def longest_silence_s(self, since: float, until: float) -> float:
        """Return the longest time without a successful write between two points of the monotonic clock."""
        moments = [since, *(at for at in self.writes if since <= at <= until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    async def _client(self, number: int) -> None:
        name, chance = f"c{number}", random.Random(self._seed * 1_000 + number)  # noqa: S311 - a workload, no secret
        turn = number % len(self._endpoints)
        endpoints = self._endpoints[turn:] + self._endpoints[:turn]
        async with KeyValueClient(endpoints, self._token, timeout_s=5.0, try_s=self._try_s) as client:
            session = await self._session(client) if number % 2 else None
            for count in itertools.count():
                if self._stopping:
                    return
                operation, route, body = self._choose(chance, name, f"{name}.{count}")
                await self._record(operation, self._call(client, session, route, body))
                await asyncio.sleep(self._pause_s * chance.random())

    async def _session(self, client: KeyValueClient) -> Session:
        while True:
            try:
                return await client.open_session()
            except KeyValueError:
                await asyncio.sleep(0.05)

    def _choose(self, chance: random.Random, name: str, value: str) -> tuple[Operation, str, dict[str, Any]]:
        key = chance.choice(self._keys)
        dice = chance.random()
        if dice < 0.45:
            return Operation(name, key, Kind.GET, 0, None), "range", {"key": key}
        if dice < 0.75:
            return Operation(name, key, Kind.PUT, 0, None, argument=value), "put", {"key": key, "value": value}
        if dice < 0.80:
            return Operation(name, key, Kind.DELETE, 0, None), "delete", {"key": key}
        expected = next((o.argument for o in reversed(self.history) if o.key == key and o.kind is Kind.PUT), None)
        compare: dict[str, Any] = {"key": key, "target": "value", "operand": expected}
        if expected is None:
            compare = {"key": key, "target": "version", "operand": 0}
        body = {"compare": [compare], "success": [{"put": {"key": key, "value": value}}]}
        return Operation(name, key, Kind.SWAP, 0, None, argument=value, expected=expected), "txn", body

    @staticmethod
    async def _call(client: KeyValueClient, session: Session | None, route: str, body: dict[str, Any]) -> Any:
        if session is not None and route != "range":
            return await session.call(route, body)
        return await client.call(route, body)

    async def _record(self, operation: Operation, call: Any) -> None:
        called, returned, result = time.monotonic_ns(), None, None
        try:
            answer = await call
        except KeyValueError as error:
            if error.code in _NOT_DONE and operation.kind is Kind.GET:
                return
            if not (error.code in _NOT_DONE or error.retryable):
                raise
        else:
            returned = time.monotonic_ns()
            result = _result(operation.kind, answer)
            if operation.kind is not Kind.GET:
                self.writes.append(returned / 1e9)
        self.history.append(
            Operation(
                operation.client,
                operation.key,
                operation.kind,
                called,
                returned,
                operation.argument,
                operation.expected,
                result,
            )
        )


def _result(kind: Kind, answer: dict[str, Any]) -> Any:
    if kind is Kind.GET:
        return answer["kvs"][0]["value"] if answer["kvs"] else None
    if kind is Kind.DELETE:
        return answer["deleted"] > 0
    return answer["succeeded"] if kind is Kind.SWAP else None
