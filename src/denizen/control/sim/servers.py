"""The servers of the simulation, and the `Mover` port over them.

A request travels, is one transaction, and its answer travels back. Either way may be lost or slow; a server may be
down; and what was sent is done even if the sender has been cancelled or has crashed by then: work of the dead arrives
late.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from denizen.control.sim.databases import Database
from denizen.control.sim.loop import VirtualLoop
from denizen.errors import DenizenError, Unavailable
from denizen.moving.move import Copied, Head, Move, Prepared, Verdict, Verification
from denizen.sharding.ids import Epoch, ShardId
from denizen.sharding.ids import Sequence as Position

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation

CHUNK_WRITES = 4
ROUNDS_MAX = 50
ANSWER_AWAITED_US = 60_000


class Servers:
    """All databases, and the network to them."""

    def __init__(self, sim: "MovesSimulation", shards: Sequence[ShardId], rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self.databases = {shard: Database(shard) for shard in shards}

    def request(
        self, shard: ShardId, what: str, transaction: Callable[[], Any], answered: Callable[[Any], None]
    ) -> None:
        """Send a transaction; `answered` gets its result or exception, unless that is lost."""
        if self._lost():
            return
        self._sim.at(self._sim.now + self._delay(what), self._arrive, shard, what, transaction, answered)

    def _arrive(
        self, shard: ShardId, what: str, transaction: Callable[[], Any], answered: Callable[[Any], None]
    ) -> None:
        database = self.databases[shard]
        result: Any
        if not database.up:
            result = Unavailable(f"{shard} is down")
        else:
            try:
                result = transaction()
            except DenizenError as error:
                result = error
            self._sim.trace.note(self._sim.now, f"{shard}: {what} = {_text(result)}")
            self._sim.checkers.transacted(database)
        if not self._lost():
            self._sim.at(self._sim.now + self._delay(), answered, result)

    def _lost(self) -> bool:
        return not self._sim.calm and self._rng.random() < self._sim.wildness.lost

    def _delay(self, what: str = "") -> int:
        wild = self._sim.wildness
        late = max(wild.delicate, wild.late) if " at " in what else wild.late
        if not self._sim.calm and self._rng.random() < late:
            return self._rng.randrange(wild.late_us)
        return 100 + self._rng.randrange(wild.delay_us)


def _text(result: Any) -> str:
    return f"{type(result).__name__}: {result}" if isinstance(result, Exception) else repr(result)


class SimMover:
    """The steps of a move, as sequences of transactions."""

    def __init__(self, sim: "MovesSimulation", loop: VirtualLoop, node: int) -> None:
        self._sim = sim
        self._loop = loop
        self._node = node

    async def _ask(self, shard: ShardId, step: str, move: Move, transaction: Callable[[Database], Any]) -> Any:
        """One transaction on one server; `Unavailable` if there is no answer in time."""
        if self._loop.dead:
            raise Unavailable("this node has crashed")
        waiting: asyncio.Future[Any] = self._loop.create_future()
        database = self._sim.servers.databases[shard]
        what = f"n{self._node} {step} b{move.bucket} attempt {move.attempt}"

        def answered(result: Any) -> None:
            if not self._loop.dead and not waiting.done():
                waiting.set_result(result)

        self._sim.servers.request(shard, what, lambda: transaction(database), answered)
        try:
            async with asyncio.timeout(ANSWER_AWAITED_US / 1e6):
                result = await waiting
        except TimeoutError:
            raise Unavailable(f"{shard} does not answer") from None
        if isinstance(result, Exception):
            raise result
        return result

    async def prepare(self, move: Move) -> Prepared:
        """As `ports.Mover` says; so are the others."""
        writes = await self._ask(move.source, "prepare", move, lambda db: db.prepare_source(move))
        await self._ask(move.target, "prepare", move, lambda db: db.prepare_target(move))
        return Prepared(writes, writes * 100)

    async def copy(self, move: Move, progress: Callable[[Copied], None]) -> Copied:
        copied, _ = await self._follow(move, CHUNK_WRITES, progress)
        return copied

    async def tail(self, move: Move) -> int:
        _, missing = await self._follow(move, 1_000, lambda _: None, rounds=1)
        return missing

    async def _follow(
        self, move: Move, chunk: int, progress: Callable[[Copied], None], rounds: int = ROUNDS_MAX
    ) -> tuple[Copied, int]:
        """Copy chunk after chunk; how far the target is, and how much is missing."""
        have: int = await self._ask(move.target, "head", move, lambda db: db.head(move))
        head = have
        for _ in range(rounds):
            after = have
            writes, head = await self._ask(move.source, "read", move, lambda db: db.read(move, after, chunk))  # noqa: B023 - awaited at once
            have = await self._ask(move.target, "copy", move, lambda db: db.take_in(move, after, writes))  # noqa: B023
            progress(Copied(have, head, have * 100))
            if have >= head:
                break
        return Copied(have, head, have * 100), max(head - have, 0)

    async def fence(self, move: Move, epoch: Epoch) -> Head:
        await self._ask(move.source, f"fence at {epoch}", move, lambda db: db.fence(move, epoch))
        return Head(Position(0), 0)

    async def finish(self, move: Move, epoch: Epoch) -> Verification:
        writes: list[int] = await self._ask(move.source, "finish", move, lambda db: db.fenced_writes(move, epoch))
        head = Head(Position(len(writes)), 0)
        have: int = await self._ask(move.target, "head", move, lambda db: db.head(move))
        if have < len(writes):
            await self._ask(move.target, "finish", move, lambda db: db.take_in(move, have, writes[have:]))
        same: bool = await self._ask(move.target, "verify", move, lambda db: db.equals(move, writes))
        if same:
            return Verification(Verdict.EQUAL, head)
        return Verification(Verdict.DIFFERENT, head, ("the writes differ",))

    async def open(self, move: Move, epoch: Epoch) -> None:
        await self._ask(move.target, f"open at {epoch}", move, lambda db: db.open(move, epoch))

    async def close(self, move: Move, epoch: Epoch) -> None:
        try:
            await self._ask(move.source, f"close at {epoch}", move, lambda db: db.close(move, epoch))
        except BaseException:
            self._sim.servers.databases[move.source].unanswered.add((move.bucket, Epoch(epoch - 1)))
            raise

    async def bar(self, move: Move) -> bool:
        barred: bool = await self._ask(move.target, "bar", move, lambda db: db.bar(move))
        return barred

    async def reopen(self, move: Move, epoch: Epoch) -> None:
        await self._ask(move.source, f"reopen at {epoch}", move, lambda db: db.reopen(move, epoch))

    async def abort(self, move: Move, progress: Callable[[Copied], None]) -> bool:
        if not await self._ask(move.target, "abort", move, lambda db: db.begin_abort(move)):
            return False
        while not await self._ask(move.target, "remove", move, lambda db: db.remove_aborted(move, CHUNK_WRITES)):
            progress(Copied(0, 0, 0))
        return True

    async def clean(self, move: Move, progress: Callable[[Copied], None]) -> Copied:
        while not await self._ask(move.source, "clean", move, lambda db: db.clean(move, CHUNK_WRITES)):
            progress(Copied(0, 0, 0))
        return Copied(0, 0, 0)
