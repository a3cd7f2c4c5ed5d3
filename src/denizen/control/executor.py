"""The executor: while a node leads, it takes all moves up and carries them on, several at a time.

`run` takes over (one command, which raises every move's attempt, so that whatever an earlier executor still does or
says is refused), then keeps one `Carrier` for each move that has not ended, and begins queued moves as servers have
places. It holds nothing that matters: it may be cancelled at any await, on any node, and the next one goes on from the
log. That two run at the same time, one of which does not know yet that it was replaced, is harmless for the same
reason.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from denizen import limits
from denizen.control.admission import to_begin, to_hasten
from denizen.control.carrying import Carrier
from denizen.control.commands import Accepted, BeginMove, Command, HastenClean, Refusal, Reply, SkipMove, TakeOver
from denizen.control.ports import Clock, Control, Mover
from denizen.control.stages import Do
from denizen.control.state import ENDED
from denizen.control.wire import MoveProgress
from denizen.raft.errors import RaftError
from denizen.sharding.ids import ShardId

_log = structlog.get_logger()


class SystemClock:
    """The clock of the machine."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()


class Executor:
    """Carries moves out, for one leadership. Run it once; `run` ends by itself if another one has taken over."""

    def __init__(
        self,
        control: Control,
        mover: Mover,
        node: int,
        clock: Clock | None = None,
        new_id: Callable[[], UUID] = uuid4,
    ) -> None:
        """`new_id` makes ids of takeovers and moves."""
        self._control = control
        self._mover = mover
        self._node = node
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._number = 0
        self._carriers: dict[UUID, tuple[Carrier, asyncio.Task[None]]] = {}
        self._lanes: dict[tuple[Do, ShardId], asyncio.Semaphore] = {}

    async def run(self) -> None:
        """Take over, and carry on until cancelled, or until another executor has taken over."""
        try:
            self._number = await self._take_over()
            while self._in_charge():
                revision = self._control.state.revision
                self._reap()
                await self._begin_moves()
                self._carry()
                if self._control.state.revision == revision:
                    await self._control.changed(revision, limits.executor_poll_s)
                self._wake()
        finally:
            await self._stop()

    def progress(self) -> list[MoveProgress]:
        """How far each move is that is under way."""
        moves = self._control.state.moves
        return [carrier.tracker.view(moves[id]) for id, (carrier, _) in self._carriers.items() if id in moves]

    # Taking over

    async def _take_over(self) -> int:
        token = self._new_id()
        while True:
            reply = await self._say(TakeOver(at_ms=self._clock.now_ms(), token=token, node=self._node))
            if isinstance(reply, Accepted) and reply.executor is not None:
                while self._control.state.revision < reply.revision:
                    await self._control.changed(self._control.state.revision, limits.executor_poll_s)
                return reply.executor

    def _in_charge(self) -> bool:
        executor = self._control.state.executor
        return executor is not None and executor.number == self._number

    async def _say(self, command: Command) -> Reply | None:
        """Have a command decided; None if that is not known, after a pause."""
        try:
            return await self._control.propose(command)
        except RaftError as error:
            _log.info("executor_command_failed", command=type(command).__name__, error=str(error))
            await asyncio.sleep(limits.move_retry_s_min)
            return None

    # Beginning

    async def _begin_moves(self) -> None:
        """Take from the queue what has a place; have cleaned first what must be."""
        for move in to_hasten(self._control.state):
            await self._say(HastenClean(at_ms=self._clock.now_ms(), move=move.id))
        for planned in to_begin(self._control.state):
            now_ms = self._clock.now_ms()
            begin = BeginMove(at_ms=now_ms, executor=self._number, move=self._new_id(), planned=planned)
            reply = await self._say(begin)
            if isinstance(reply, Refusal) and reply.code in ("target_not_active", "not_owner"):
                await self._say(SkipMove(at_ms=now_ms, executor=self._number, planned=planned))
            if not isinstance(reply, Accepted):
                return  # look at the state anew

    # Carrying

    def _carry(self) -> None:
        """One carrier for each move that has not ended."""
        for id, move in self._control.state.moves.items():
            if id not in self._carriers and move.stage not in ENDED:
                carrier = Carrier(id, self._control, self._mover, self._clock, self._lane_of)
                self._carriers[id] = (carrier, asyncio.get_running_loop().create_task(carrier.run()))

    def _lane_of(self, step: Do, shard: ShardId) -> asyncio.Semaphore:
        """Committed moves take no place, so a new leader may find hundreds: they close and are cleaned in turn."""
        at_once = 1 if step is Do.CLEAN else limits.closes_at_once_per_server
        return self._lanes.setdefault((step, shard), asyncio.Semaphore(at_once))

    def _wake(self) -> None:
        for carrier, _ in list(self._carriers.values()):
            carrier.state_changed()

    def _reap(self) -> None:
        """Forget the carriers that have ended. One that ended by a defect is told of, and begun anew."""
        for id, (_, task) in list(self._carriers.items()):
            if not task.done():
                continue
            del self._carriers[id]
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("move_carrier_failed", move=str(id), exc_info=error)

    async def _stop(self) -> None:
        tasks = [task for _, task in self._carriers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._carriers.clear()
