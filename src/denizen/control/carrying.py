"""One move, carried by the leader's executor from wherever it is to its end.

A loop: look at the record, ask `stages.next_step`, do that. Every round begins with what the log says, so it does not
matter where the one before it broke off, whose it was, or whether a reply was lost. A step under way is interrupted
when the record has turned to another attempt, or when a pause stops its stage.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog
from msgspec.structs import replace

from denizen import limits
from denizen.control.commands import Accepted, Command, Committed, StageCommand
from denizen.control.ports import Clock, Control, Mover
from denizen.control.stages import HOLDING, PAUSABLE, Do, Facts, Wait, give_up, next_step
from denizen.control.state import ENDED, MoveRecord, RebalanceStatus, Settings, Stage
from denizen.control.tracking import Tracker
from denizen.errors import DenizenError
from denizen.moving.errors import MoveAborted, Outrun, StaleAttempt, TooFarBehind
from denizen.raft.errors import RaftError
from denizen.sharding.ids import Epoch, ShardId

_log = structlog.get_logger()

FORWARD = frozenset({Stage.PLANNED, Stage.COPYING, Stage.TAILING, Stage.FENCED, Stage.VERIFIED})
"""Stages in which a step that cannot be done ends the move; after them, it is tried for ever."""


LaneOf = Callable[[Do, ShardId], asyncio.Semaphore]
"""What a step that many committed moves may want at once waits for, on each server."""


class Carrier:
    """Carries one move. Owned by the executor, which runs it as a task, wakes it on changes and cancels it."""

    def __init__(self, move: UUID, control: Control, mover: Mover, clock: Clock, lane_of: LaneOf) -> None:
        self.id = move
        self._control = control
        self._mover = mover
        self._clock = clock
        self._lane_of = lane_of
        self._changed = asyncio.Event()
        self._seen: tuple[MoveRecord | None, bool, Settings | None] = (None, False, None)
        self._doing: tuple[asyncio.Task[Any], MoveRecord] | None = None
        self._facts = Facts()
        self._facts_of: tuple[Stage, int] | None = None
        self._fence_began: float | None = None
        self._tries = 0
        self._outrun = 0
        self.tracker = Tracker(clock)

    # Told by the executor

    def state_changed(self) -> None:
        """Wake from a wait; interrupt a step that has no sense any more. Changes elsewhere do not matter: there may be
        thousands of moves that only wait for their clean-up.
        """
        move, paused, settings = self._move(), self._paused(), self._control.state.settings
        if self._seen[0] is move and self._seen[1] is paused and self._seen[2] is settings:
            return
        self._seen = (move, paused, settings)
        self._changed.set()
        if self._doing is not None:
            task, begun = self._doing
            if move is None or move.attempt != begun.attempt or (paused and move.stage in PAUSABLE):
                task.cancel()

    async def run(self) -> None:
        """Until the move has ended. Cancelled when this node does not lead any more."""
        while (move := self._move()) is not None and move.stage not in ENDED:
            self._changed.clear()
            if self._facts_of != (move.stage, move.attempt):
                self._facts, self._facts_of = Facts(closed=self._facts.closed), (move.stage, move.attempt)
                self.tracker.entered(move)
            await self._round(move)

    async def _round(self, move: MoveRecord) -> None:
        """One step, word or wait; what fails is tried again after a while."""
        step = next_step(move, self._facts, self._control.state.settings, self._clock.now_ms(), paused=self._paused())
        try:
            if isinstance(step, Wait):
                await self._wait(step)
            elif isinstance(step, StageCommand):
                await self._say(self._with_hold(step))
            elif step in (Do.CLOSE, Do.CLEAN) and move.stage not in HOLDING:
                async with self._lane_of(step, move.source):
                    if not (self._paused() and move.stage in PAUSABLE):  # it may be by now; the next round sees to it
                        await self._do(step, move)
            else:
                await self._do(step, move)
            self._tries = 0
        except (DenizenError, RaftError, OSError, TimeoutError) as error:
            await self._failed(move, step, error)

    # Steps

    async def _do(self, step: Do, move: MoveRecord) -> None:
        """One step on the servers, bounded by the hold budget if writes are held."""
        self.tracker.begun(step)
        if step is Do.FENCE and self._fence_began is None:
            self._fence_began = self._clock.monotonic()
        task = asyncio.get_running_loop().create_task(self._ask(step, move))
        self._doing = (task, move)
        try:
            async with asyncio.timeout(self._seconds_left(move, step)):
                await task
        except asyncio.CancelledError:
            if not _interrupted(task):
                raise  # it is the carrier that is to end
        finally:
            self._doing = None
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _ask(self, step: Do, move: MoveRecord) -> None:
        """Have a step done, and note what was answered."""
        mover, facts, told = self._mover, self._facts, move.as_move()
        seen: Callable[[Any], None] = self.tracker.progress
        match step:
            case Do.PREPARE:
                facts.prepared = await mover.prepare(told)
            case Do.COPY:
                seen(await mover.copy(told, seen))
                facts.copied = True
            case Do.TAIL:
                facts.missing = await mover.tail(told)
            case Do.FENCE:
                await mover.fence(told, Epoch(move.open_epoch - 1))
                facts.fenced = True
            case Do.FINISH:
                facts.verification = await mover.finish(told, Epoch(move.open_epoch - 1))
            case Do.OPEN:
                await mover.open(told, move.open_epoch)
                facts.opened = True
            case Do.CLOSE:
                await mover.close(told, move.open_epoch)
                facts.closed = True
            case Do.BAR:
                facts.barred = await mover.bar(told)
            case Do.REOPEN:
                await mover.reopen(told, move.open_epoch)
                facts.reopened = True
            case Do.ABORT:
                facts.aborted = await mover.abort(told, seen)
            case Do.CLEAN:
                seen(await mover.clean(told, seen))
                facts.cleaned = True

    def _seconds_left(self, move: MoveRecord, step: Do) -> float | None:
        """While writes are held: until the budget is used up, but for a moment at least to close the source."""
        closing = step is Do.CLOSE and move.stage in HOLDING
        if move.stage not in (Stage.FENCED, Stage.VERIFIED) and not closing:
            return None
        due_ms = move.fenced_ms + self._control.state.settings.hold_budget_ms
        left_s = max((due_ms - self._clock.now_ms()) / 1_000, 0.0) + limits.hold_slack_s
        return max(left_s, limits.move_close_s) if closing else left_s

    # Words

    async def _say(self, command: Command) -> None:
        """Have a command decided, and see its effect. What is refused is seen in the record of the next round."""
        reply = await self._control.propose(command)
        if isinstance(reply, Accepted):
            while self._control.state.revision < reply.revision:
                await self._control.changed(self._control.state.revision, limits.executor_poll_s)
        else:
            _log.info("move_command_refused", move=str(self.id), command=type(command).__name__, why=reply.detail)
            await asyncio.sleep(limits.move_retry_s_min)
        if not isinstance(command, StageCommand):
            return
        move = self._move()
        if move is None or move.stage not in HOLDING:
            self._fence_began = None

    def _with_hold(self, command: StageCommand) -> StageCommand:
        """`Committed` says how long writes were held: as measured here, else by the clocks."""
        move = self._move()
        if not isinstance(command, Committed) or move is None:
            return command
        held_s = max(command.at_ms - move.fenced_ms, 0) / 1_000
        if self._fence_began is not None:
            held_s = self._clock.monotonic() - self._fence_began
        return replace(command, held_us=int(held_s * 1e6))

    async def _wait(self, wait: Wait) -> None:
        """Until the time has come, or something has changed."""
        seconds = limits.executor_poll_s
        if wait.until_ms is not None:
            seconds = min(max((wait.until_ms - self._clock.now_ms()) / 1_000, 0.001), limits.executor_wait_s_max)
        await _first(self._changed.wait(), seconds)

    # Failures

    async def _failed(self, move: MoveRecord, step: object, error: Exception) -> None:
        """A step or a command failed: try again later, or turn back for good."""
        self._tries += 1
        held = move.stage in HOLDING
        pause = min(limits.move_retry_s_min * 2 ** min(self._tries - 1, 16), limits.move_retry_s_max)
        self.tracker.failed(error)
        if not (held and isinstance(error, TimeoutError)):
            _log.info("move_step_failed", move=str(self.id), bucket=move.bucket, step=str(step), error=str(error))
        self._outrun += isinstance(error, Outrun)
        if step is Do.CLOSE and held:
            self._facts.not_closed = True  # the target is open: what is held must not wait for the source
        elif isinstance(step, Do) and move.stage in FORWARD and self._is_final(error):
            await self._turn_back(move, error, fail=True)
        elif isinstance(error, TooFarBehind):
            await self._turn_back(move, error, fail=False)  # not fenced: there is more to be copied first
        else:
            await asyncio.sleep(min(pause, limits.move_held_retry_s_max) if held else pause)

    def _is_final(self, error: Exception) -> bool:
        """Whether repeating the step cannot help. A stale attempt is not final: the record will say what is."""
        if isinstance(error, Outrun):
            return self._outrun >= limits.move_outrun_max
        if isinstance(error, MoveAborted):
            return True
        return isinstance(error, DenizenError) and not error.retryable and not isinstance(error, StaleAttempt)

    async def _turn_back(self, move: MoveRecord, error: Exception, *, fail: bool) -> None:
        reason = f"{getattr(error, 'code', 'error')}: {error}"
        try:
            await self._say(give_up(move, self._clock.now_ms(), reason, fail=fail))
        except RaftError:
            await asyncio.sleep(limits.move_retry_s_min)  # the step is tried again, and fails again

    # What it looks at

    def _move(self) -> MoveRecord | None:
        return self._control.state.moves.get(self.id)

    def _paused(self) -> bool:
        rebalance = self._control.state.rebalance
        return rebalance is not None and rebalance.status is RebalanceStatus.PAUSED


def _interrupted(task: "asyncio.Task[Any]") -> bool:
    """Whether only the step was cancelled, not the carrier around it."""
    current = asyncio.current_task()
    return task.cancelled() and (current is None or not current.cancelling())


async def _first(waiting: Awaitable[Any], seconds: float) -> None:
    """Wait for it, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return
