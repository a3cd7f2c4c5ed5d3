"""The rules for moves: which stage follows which, and what a stage does to the map. Pure.

The order is the safety of the whole: the fence's epoch is given out before the source is fenced (`fenced`), the target
may open only after `verified` is in the log, and once it may, the source is reopened only after the target was barred.
An attempt is raised whenever somebody else takes the move up and whenever it turns back, so that nothing that was
begun before can still be done: not here, and not in the databases, which compare it too.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from denizen import limits
from denizen.control.commands import (
    Aborted,
    BeginMove,
    CancelMove,
    Cleaned,
    CleanStarted,
    Committed,
    CopyFinished,
    FenceIntended,
    GiveUp,
    HastenClean,
    Prepared,
    Reopened,
    SkipMove,
    StageCommand,
    TakeOver,
    Verified,
)
from denizen.control.refusing import Refuse
from denizen.control.state import (
    COMMITTED,
    ENDED,
    ControlState,
    Executor,
    MoveRecord,
    Rebalance,
    RebalanceStatus,
    ShardStatus,
    Stage,
)
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import Bucket, Epoch, ShardId

ORDER = (
    Stage.PLANNED,
    Stage.COPYING,
    Stage.TAILING,
    Stage.FENCED,
    Stage.VERIFIED,
    Stage.COMMITTED,
    Stage.CLEANING,
    Stage.DONE,
)
"""The way forward, from planned to done."""

BEFORE_FENCE = frozenset({Stage.PLANNED, Stage.COPYING, Stage.TAILING})
UNDER_FENCE = frozenset({Stage.FENCED, Stage.VERIFIED})


def take_over(state: ControlState, command: TakeOver) -> ControlState:
    """A new leader's executor: what the one before it still says or does is refused from now on."""
    known = state.executor
    if known is not None and known.token == command.token:
        return state
    number = known.number + 1 if known is not None else 1
    moves = {id: replace(move, attempt=move.attempt + 1) for id, move in state.moves.items()}
    return replace(state, executor=Executor(number, command.token, command.node, command.at_ms), moves=moves)


def begin_move(state: ControlState, command: BeginMove) -> ControlState:
    """Take a move from the queue. Its bucket has no other move, but for one that only waits to be cleaned elsewhere."""
    planned = command.planned
    if command.move in state.moves:
        return state
    rebalance = _of_executor(state, command.executor)
    if rebalance.status is not RebalanceStatus.RUNNING:
        raise Refuse("not_running", f"the rebalance is {rebalance.status}")
    if planned not in rebalance.queue:
        raise Refuse("not_queued", f"bucket {planned.bucket} is not in the queue")
    check_fits(state, planned.bucket, planned.source, planned.target)
    bucket_map = the_map(state)
    record = MoveRecord(
        id=command.move,
        rebalance=rebalance.id,
        bucket=planned.bucket,
        source=planned.source,
        target=planned.target,
        users=planned.users,
        bytes=planned.bytes,
        stage=Stage.PLANNED,
        attempt=1,
        epoch=bucket_map.epoch_of(planned.bucket),
        begun_ms=command.at_ms,
        since_ms=command.at_ms,
    )
    queue = tuple(other for other in rebalance.queue if other != planned)
    return replace(state, rebalance=replace(rebalance, queue=queue), moves=state.moves | {record.id: record})


def skip_move(state: ControlState, command: SkipMove) -> ControlState:
    """Drop a planned move that cannot begin any more; it counts as failed."""
    rebalance = _of_executor(state, command.executor)
    queue = tuple(other for other in rebalance.queue if other != command.planned)
    if len(queue) == len(rebalance.queue):
        return state
    return replace(state, rebalance=replace(rebalance, queue=queue, failed=rebalance.failed + 1))


def check_fits(state: ControlState, bucket: Bucket, source: ShardId, target: ShardId) -> None:
    """Refuse a move that cannot begin as things are."""
    bucket_map, shard = the_map(state), state.shards.get(target)
    if shard is None or shard.status is not ShardStatus.ACTIVE:
        raise Refuse("target_not_active", f"shard {target} cannot take buckets: it is not active")
    owner = bucket_map.shard_of(bucket)
    if source == target or owner != source:
        raise Refuse("not_owner", f"bucket {bucket} is with {owner} and cannot move from {source} to {target}")
    for move in state.moves.values():
        if move.bucket == bucket and move.stage not in COMMITTED:
            raise Refuse("bucket_moves", f"bucket {bucket} is being moved already")
        if move.bucket == bucket and move.source == target:
            raise Refuse("not_clean", f"shard {target} still holds bucket {bucket} from before: it is cleaned first")


def advance(state: ControlState, command: StageCommand) -> ControlState:
    """Any command about a stage of a move."""
    step, sources, reaches = _STEPS[type(command)]
    move = _attempt(state, command)
    if move.stage in sources and (move.stage is not Stage.RELEASING or reaches is not Stage.COMMITTED or _open(move)):
        return step(state, move, command)
    if _reached(move.stage, reaches):
        return state
    raise Refuse("wrong_stage", f"the move of bucket {move.bucket} is {move.stage}: {_name(command)} does not apply")


def _open(move: MoveRecord) -> bool:
    """A move that turns back may still be committed if its target was allowed to open."""
    return move.may_be_open


def _name(command: StageCommand) -> str:
    return type(command).__name__


def _reached(stage: Stage, wanted: Stage | None) -> bool:
    """Whether the move is there already, or further: the command is a repeated one."""
    if wanted is None:
        return False
    return stage is wanted or (stage in ORDER and wanted in ORDER and ORDER.index(stage) >= ORDER.index(wanted))


def _attempt(state: ControlState, command: StageCommand) -> MoveRecord:
    """The move, if the command is of its current attempt."""
    move = state.moves.get(command.move) or next((move for move in state.ended if move.id == command.move), None)
    if move is None:
        raise Refuse("no_such_move", f"there is no move {command.move}")
    if move.attempt != command.attempt:
        raise Refuse("stale_attempt", f"attempt {command.attempt} is over; the move is at attempt {move.attempt}")
    return move


def _prepared(state: ControlState, move: MoveRecord, command: Prepared) -> ControlState:
    return put_move(state, _to(move, Stage.COPYING, command.at_ms, bytes=command.bytes or move.bytes))


def _copied(state: ControlState, move: MoveRecord, command: CopyFinished) -> ControlState:
    return put_move(state, _to(move, Stage.TAILING, command.at_ms))


def _fence(state: ControlState, move: MoveRecord, command: FenceIntended) -> ControlState:
    return put_move(
        state, _to(move, Stage.FENCED, command.at_ms, fence_epoch=Epoch(move.epoch + 1), fenced_ms=command.at_ms)
    )


def _verified(state: ControlState, move: MoveRecord, command: Verified) -> ControlState:
    return put_move(state, _to(move, Stage.VERIFIED, command.at_ms, may_be_open=True))


def _committed(state: ControlState, move: MoveRecord, command: Committed) -> ControlState:
    """The point of no return, for the map: the target is open already, and nobody else ever was since the fence."""
    bucket_map = with_owner(the_map(state), move.bucket, move.target, move.open_epoch)
    done = _to(move, Stage.COMMITTED, command.at_ms, held_us=command.held_us, then=None)
    state = replace(put_move(state, done), map=bucket_map)
    moved = {"users_moved": move.users, "bytes_moved": move.bytes}
    return counted(state, done, command.at_ms, committed=1, holds_us=(command.held_us,), **moved)


def _give_up(state: ControlState, move: MoveRecord, command: GiveUp) -> ControlState:
    """Turn back: for a while, or for good."""
    holds = move.holds + (move.stage in UNDER_FENCE)
    fail = command.fail or move.stage in BEFORE_FENCE or holds >= state.settings.holds_max
    back = undone(move, Stage.FAILED if fail else Stage.TAILING, command.reason, command.at_ms)
    return put_move(state, replace(back, holds=holds, not_before_ms=command.not_before_ms))


def _reopened(state: ControlState, move: MoveRecord, command: Reopened) -> ControlState:
    """The source is open again, at a new epoch, which the map has to know."""
    epoch, back = move.open_epoch, move.then is Stage.TAILING
    bucket_map = with_owner(the_map(state), move.bucket, move.source, epoch)
    there = state.shards[move.target].status is not ShardStatus.REMOVED
    opened = replace(
        _to(move, Stage.TAILING if back else Stage.ABORTING, command.at_ms),
        attempt=move.attempt + 1,
        epoch=epoch,
        fence_epoch=None,
        may_be_open=False,
        then=None if back else move.then,
    )
    state = replace(put_move(state, opened), map=bucket_map)
    return state if there or back else _end_undone(state, opened, command.at_ms)


def _aborted(state: ControlState, move: MoveRecord, command: Aborted) -> ControlState:
    return _end_undone(state, move, command.at_ms)


def _end_undone(state: ControlState, move: MoveRecord, at_ms: int) -> ControlState:
    cancelled = move.then is not Stage.FAILED
    ended = _to(move, Stage.CANCELLED if cancelled else Stage.FAILED, at_ms)
    return counted(put_move(state, ended), ended, at_ms, cancelled=int(cancelled), failed=int(not cancelled))


def _cleaning(state: ControlState, move: MoveRecord, command: CleanStarted) -> ControlState:
    return put_move(state, _to(move, Stage.CLEANING, command.at_ms))


def _cleaned(state: ControlState, move: MoveRecord, command: Cleaned) -> ControlState:
    return put_move(state, _to(move, Stage.DONE, command.at_ms))


_STEPS: dict[type[StageCommand], tuple[Callable[[ControlState, MoveRecord, Any], ControlState], Any, Stage | None]] = {
    Prepared: (_prepared, {Stage.PLANNED}, Stage.COPYING),
    CopyFinished: (_copied, {Stage.COPYING}, Stage.TAILING),
    FenceIntended: (_fence, {Stage.TAILING}, Stage.FENCED),
    Verified: (_verified, {Stage.FENCED}, Stage.VERIFIED),
    Committed: (_committed, {Stage.VERIFIED, Stage.RELEASING}, Stage.COMMITTED),
    GiveUp: (_give_up, BEFORE_FENCE | UNDER_FENCE, None),
    Reopened: (_reopened, {Stage.RELEASING}, None),
    Aborted: (_aborted, {Stage.ABORTING}, None),
    CleanStarted: (_cleaning, {Stage.COMMITTED}, Stage.CLEANING),
    Cleaned: (_cleaned, {Stage.CLEANING}, Stage.DONE),
}
"""For each command: what it does, in which stages, and the stage in which a repeated one finds the move."""


def cancel_move(state: ControlState, command: CancelMove) -> ControlState:
    """Undo one move, as an operator wishes."""
    move = state.moves.get(command.move)
    if move is None:
        raise Refuse("no_such_move", f"there is no move {command.move} under way")
    if move.stage in COMMITTED:
        raise Refuse("too_late", f"bucket {move.bucket} is with {move.target} already: going back is another move")
    back = undone(move, Stage.CANCELLED, "cancelled", command.at_ms)
    return state if back is move else put_move(state, back)


def undone(move: MoveRecord, then: Stage, reason: str, at_ms: int) -> MoveRecord:
    """A move that is not committed, turned back: first the source is reopened if it may be fenced."""
    if move.stage is Stage.ABORTING or (move.stage is Stage.RELEASING and move.then is not Stage.TAILING):
        return move
    if move.stage is Stage.RELEASING:
        return replace(move, then=then, reason=reason)
    stage = Stage.RELEASING if move.stage in UNDER_FENCE else Stage.ABORTING
    return replace(_to(move, stage, at_ms), attempt=move.attempt + 1, then=then, reason=reason)


def hasten_clean(state: ControlState, command: HastenClean) -> ControlState:
    """Do not wait for the grace."""
    move = state.moves.get(command.move)
    if move is None or move.hasty or move.stage is Stage.CLEANING:
        return state
    if move.stage is not Stage.COMMITTED:
        raise Refuse("wrong_stage", f"the move of bucket {move.bucket} is {move.stage}: there is nothing to clean yet")
    return put_move(state, replace(move, hasty=True))


def with_owner(bucket_map: BucketMap, bucket: Bucket, shard: ShardId, epoch: Epoch) -> BucketMap:
    """The next map: this bucket is with this shard, at this epoch."""
    owners, epochs = list(bucket_map.owners), list(bucket_map.epochs)
    owners[bucket], epochs[bucket] = bucket_map.shards.index(shard), epoch
    return replace(bucket_map, version=bucket_map.version + 1, owners=tuple(owners), epochs=tuple(epochs))


def the_map(state: ControlState) -> BucketMap:
    """The map of a founded deployment."""
    if state.map is None:
        raise Refuse("not_founded", "the deployment is not founded yet: start it with `denizen up`")
    return state.map


def _of_executor(state: ControlState, number: int) -> Rebalance:
    """The rebalance, if this is the executor in charge."""
    if state.executor is None or state.executor.number != number:
        raise Refuse("superseded", f"executor {number} is not in charge any more")
    if state.rebalance is None:
        raise Refuse("no_rebalance", "there is no rebalance")
    return state.rebalance


def _to(move: MoveRecord, stage: Stage, at_ms: int, **more: Any) -> MoveRecord:
    return replace(move, stage=stage, since_ms=at_ms, **more)


def put_move(state: ControlState, move: MoveRecord) -> ControlState:
    """The state with this move as it is now, among those under way or those that ended."""
    if move.stage not in ENDED:
        return replace(state, moves=state.moves | {move.id: move})
    moves = {id: other for id, other in state.moves.items() if id != move.id}
    return replace(state, moves=moves, ended=(*state.ended, move)[-limits.control_ended_moves_max :])


def without_queued(state: ControlState, target: ShardId) -> ControlState:
    """Nothing more is to come to this shard: what was queued for it is cancelled."""
    rebalance = state.rebalance
    if rebalance is None:
        return state
    queue = tuple(planned for planned in rebalance.queue if planned.target != target)
    cancelled = rebalance.cancelled + len(rebalance.queue) - len(queue)
    return replace(state, rebalance=replace(rebalance, queue=queue, cancelled=cancelled))


def counted(
    state: ControlState, move: MoveRecord, at_ms: int, holds_us: tuple[int, ...] = (), **more: int
) -> ControlState:
    """The rebalance with one more move committed, cancelled or failed. What fails again and again is not for this move
    alone (a full disk, say), so the rebalance pauses until somebody has looked.
    """
    rebalance = state.rebalance
    if rebalance is None or rebalance.id != move.rebalance:
        return state
    counts = {name: getattr(rebalance, name) + count for name, count in more.items()}
    in_row = 0 if more.get("committed") else rebalance.failed_in_row + more.get("failed", 0)
    failures = (*rebalance.failures, *([move] if more.get("failed") else []))[-limits.rebalance_failures_kept :]
    holds_us = rebalance.holds_us + holds_us
    after = replace(rebalance, holds_us=holds_us, failed_in_row=in_row, failures=failures, **counts)
    if after.status is RebalanceStatus.RUNNING and after.queue and in_row >= limits.rebalance_failed_in_row_max:
        after = replace(after, status=RebalanceStatus.PAUSED, since_ms=at_ms, failed_in_row=0)
    return replace(state, rebalance=after)
