"""From the control plane's state to what operators see: pure, with the time given."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from denizen.api.operations import (
    BucketDocument,
    BucketRange,
    HoldsDocument,
    MapDocument,
    MoveDocument,
    RebalanceDocument,
    RebalanceStatusDocument,
    ShardDocument,
)
from denizen.control.state import COMMITTED, ControlState, MoveRecord, Rebalance, RebalanceStatus, Shard, Stage
from denizen.operators.plans import balance_document
from denizen.sharding.bucket_map import BucketMap, counts
from denizen.sharding.ids import BUCKETS, Bucket

LAST_SHOWN = 8


def shard_documents(state: ControlState) -> list[ShardDocument]:
    """Every shard, in the order of their birth."""
    owned = counts(state.map) if state.map is not None else {}
    return [shard_document(shard, owned.get(shard.id, 0)) for shard in state.shards.values()]


def shard_document(shard: Shard, buckets: int) -> ShardDocument:
    """One shard; its DSN is a secret and stays here."""
    return ShardDocument(shard.id, shard.status.value, shard.dsn is None, shard.weight, buckets, _time(shard.since_ms))


def map_document(bucket_map: BucketMap) -> MapDocument:
    """The map, buckets that follow each other in one entry."""
    ranges: list[BucketRange] = []
    for number in range(BUCKETS):
        shard, epoch = bucket_map.shard_of(Bucket(number)), bucket_map.epoch_of(Bucket(number))
        if ranges and (ranges[-1].shard, ranges[-1].epoch) == (shard, epoch):
            ranges[-1].last = number
        else:
            ranges.append(BucketRange(number, number, shard, epoch))
    return MapDocument(bucket_map.version, list(bucket_map.shards), ranges)


def bucket_documents(state: ControlState, buckets: Iterable[Bucket]) -> list[BucketDocument]:
    """These buckets, with their moves."""
    if state.map is None:
        return []
    moves = {move.bucket: move for move in state.moves.values()}
    return [
        BucketDocument(
            bucket,
            state.map.shard_of(bucket),
            state.map.epoch_of(bucket),
            move_document(moves[bucket]) if bucket in moves else None,
        )
        for bucket in buckets
    ]


def move_document(move: MoveRecord) -> MoveDocument:
    """One move."""
    return MoveDocument(
        move.id,
        move.bucket,
        move.source,
        move.target,
        move.users,
        move.bytes,
        move.stage.value,
        move.attempt,
        _time(move.begun_ms),
        _time(move.since_ms),
        move.holds,
        round(move.held_us / 1e3, 1),
        move.reason or None,
    )


def status_document(state: ControlState, now_ms: int) -> RebalanceStatusDocument:
    """Whether there is a rebalance, and all moves that have not ended."""
    rebalance = None if state.rebalance is None else rebalance_document(state, state.rebalance, now_ms)
    return RebalanceStatusDocument(rebalance, [move_document(move) for move in state.moves.values()])


def rebalance_document(state: ControlState, rebalance: Rebalance, now_ms: int) -> RebalanceDocument:
    """How far a rebalance is: what is committed counts as moved. The time left is that of what takes longer at the rate
    so far, the users or the buckets, of which many may be empty.
    """
    plan, users = rebalance.plan, rebalance.users_moved
    moving = [move for move in state.moves.values() if move.rebalance == rebalance.id]
    ended = [move for move in state.ended if move.rebalance == rebalance.id and move.stage is not Stage.FAILED]
    under_way = [move for move in moving if move.stage not in COMMITTED]
    users_left = sum(move.users for move in rebalance.queue) + sum(move.users for move in under_way)
    running = rebalance.status is RebalanceStatus.RUNNING
    seconds = ((now_ms if running else rebalance.since_ms) - rebalance.started_ms - rebalance.paused_ms) / 1e3
    rate = users / seconds if seconds > 0 and users > 0 else None
    left_s = None
    if running and rebalance.committed:
        by_buckets = (len(rebalance.queue) + len(under_way)) * seconds / rebalance.committed
        left_s = round(max(users_left / rate if rate else 0.0, by_buckets), 1)
    return RebalanceDocument(
        rebalance.id,
        rebalance.status.value,
        plan.by.value,
        _time(rebalance.started_ms),
        _time(rebalance.since_ms),
        plan.moves,
        rebalance.committed,
        rebalance.cancelled,
        rebalance.failed,
        len(rebalance.queue),
        plan.users,
        users,
        plan.bytes,
        min(rebalance.bytes_moved, plan.bytes),
        None if rate is None else round(rate, 1),
        left_s,
        holds_document(rebalance.holds_us),
        balance_document(plan.before),
        balance_document(plan.after),
        [move_document(move) for move in moving],
        [move_document(move) for move in (*rebalance.failures, *ended[-LAST_SHOWN:])],
    )


def holds_document(holds_us: Sequence[int]) -> HoldsDocument:
    """For how long writes were held: percentiles of the moves so far."""
    ordered = sorted(holds_us)
    if not ordered:
        return HoldsDocument(0, None, None, None)

    def at(percent: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1e3, 2)

    return HoldsDocument(len(ordered), at(50), at(99), at(100))


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1e3, UTC)
