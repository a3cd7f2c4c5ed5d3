"""The key-value service of one node: the state machine behind Raft, with batching, reads, watches and lease time.

Writes go through the log, from whichever node they arrive at. A linearizable read waits until this node has applied all
that was acknowledged before the read began; reads that wait share one confirmation. The node that leads counts the
leases' time.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Protocol

from denizen.raft import errors as raft
from denizen.raft.kv import errors
from denizen.raft.kv.batching import Batcher, translated
from denizen.raft.kv.keyspace import Keyspace
from denizen.raft.kv.leasing import LeaseClock
from denizen.raft.kv.limits import LEASE_CHECK_S, REQUEST_TIMEOUT_S, WATCH_HEARTBEAT_S
from denizen.raft.kv.machine import KeyValueMachine
from denizen.raft.kv.model import Operation, Range, RangeResult, Refusal, Request, Result, RevokeLease
from denizen.raft.kv.rules import check, check_request
from denizen.raft.kv.watching import Changes, Watches, WatchQuery


class Replica(Protocol):
    """What the service needs of a Raft node (see `denizen.raft.Node`)."""

    async def propose(self, command: bytes, /, *, timeout_s: float | None = None) -> Any: ...

    async def read(self, timeout_s: float | None = None) -> int: ...

    @property
    def is_leader(self) -> bool: ...

    def status(self) -> Any: ...


class WatchedMachine:
    """The state machine with a bell: Raft applies to it, and the watches are told."""

    def __init__(self, machine: KeyValueMachine | None = None) -> None:
        self.store = machine or KeyValueMachine()
        self.watches = Watches(self._keyspace)
        self.applied_requests = 0

    def _keyspace(self) -> Keyspace:
        return self.store.keyspace

    def apply(self, index: int, command: bytes) -> list[Result]:
        results = self.store.apply(index, command)
        self.applied_requests += len(results)
        self.watches.wake()
        return results

    def snapshot(self) -> Iterator[bytes]:
        return self.store.snapshot()

    def restore(self, snapshot: bytes) -> None:
        self.store.restore(snapshot)
        self.watches.wake()


class KeyValueService:
    """Answers the operations of `model.py` at one node. Owns the batcher and the task that ends leases."""

    def __init__(self, node: Replica, machine: WatchedMachine, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._node = node
        self._machine = machine
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._clock = LeaseClock()
        self._reading: asyncio.Task[None] | None = None
        self._next_reading: asyncio.Task[None] | None = None
        self._lease_task: asyncio.Task[None] | None = None
        self.batcher = Batcher(self._propose)
        self.reads = 0
        self.term = 0
        """The term as of a moment ago; to be told, not to decide by."""

    @property
    def store(self) -> KeyValueMachine:
        return self._machine.store

    async def start(self) -> None:
        self._lease_task = asyncio.create_task(self._end_leases())

    async def stop(self) -> None:
        """Refuse what is new, end the watches, wait for what is in flight."""
        if self._lease_task is not None:
            self._lease_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._lease_task
        self._machine.watches.close()
        await self.batcher.close()

    # --- operations --------------------------------------------------------------------------------------------------

    async def submit(self, operation: Operation, session: int = 0, sequence: int = 0) -> Result:
        """Carry out an operation through the log; raises the errors of `kv.errors`."""
        request = Request(operation, session, sequence)
        check_request(request)
        return self.accepted(await self.batcher.submit(request))

    async def range(self, query: Range, *, linearizable: bool = True) -> RangeResult:
        """Read a range: as new as any write acknowledged before, or (not `linearizable`) as this node happens to be."""
        check(query)
        if linearizable:
            await self.confirm()
        self.reads += 1
        result = self.accepted(self.store.range(query))
        assert isinstance(result, RangeResult)  # noqa: S101 - narrows the type
        return result

    async def watch(
        self, query: WatchQuery, *, heartbeat_s: float = WATCH_HEARTBEAT_S
    ) -> AsyncGenerator[Changes, None]:
        """Yield changes from a revision on; the first one is empty and says where the watch begins."""
        check(Range(query.key, query.end))
        if not query.from_revision:
            await self.confirm()
        changes = self._machine.watches.follow(query, heartbeat_s)
        yield Changes(query.from_revision - 1 if query.from_revision else self.store.revision, [])
        async with contextlib.aclosing(changes):
            async for change in changes:
                yield change

    async def confirm(self) -> None:
        """Wait until this node has applied everything acknowledged before this call.

        A confirmation that has begun already may be too old for a new reader, so that readers share the next one.
        """
        if self._next_reading is None:
            self._next_reading = self._loop.create_task(self._confirm_after(self._reading))
            self._next_reading.add_done_callback(_seen)
        await asyncio.shield(self._next_reading)

    def lease_remaining_s(self, lease: int) -> float | None:
        """Return the seconds a lease has left as this node counts it, or None when it has not begun to count."""
        return self._clock.remaining_s(lease, self._loop.time())

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start."""
        return {
            "requests_applied": self._machine.applied_requests,
            "requests_proposed": self.batcher.requests,
            "batches_proposed": self.batcher.batches,
            "ranges_answered": self.reads,
            "watches_open": self._machine.watches.count,
        }

    @staticmethod
    def accepted(result: Result) -> Result:
        """Return the result, or raise what it refuses."""
        if isinstance(result, Refusal):
            raise errors.error_of(result.code, result.detail, revision=result.revision)
        return result

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _propose(self, command: bytes) -> Any:
        return await self._node.propose(command, timeout_s=self._timeout_s)

    async def _confirm_after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None and not running.done():
            await asyncio.wait([running])
        self._reading, self._next_reading = self._next_reading, None
        try:
            await self._node.read(timeout_s=self._timeout_s)
        except raft.OutcomeUnknown as error:
            raise errors.TimedOut("the read was not confirmed in time: try again") from error
        except raft.RaftError as error:
            raise translated(error) from error

    async def _end_leases(self) -> None:
        with contextlib.suppress(raft.Stopped):  # whoever runs the node sees to that
            while True:
                await asyncio.sleep(LEASE_CHECK_S)
                status, now = self._node.status(), self._loop.time()
                self.term = status.term
                self._clock.count(self.store.leases, (status.term, status.leader), now)
                for lease in self._clock.expired(now) if self._node.is_leader else ():
                    with contextlib.suppress(errors.KeyValueError):  # another leader, or a later round, sees to it
                        await self.submit(RevokeLease(lease))


def _seen(task: asyncio.Task[None]) -> None:
    """All who waited may have gone: their loss is no defect of ours."""
    if not task.cancelled():
        task.exception()
