"""The planner: state and measures in, an immutable plan out. The same input gives the same plan.

Greedy, in two parts. First, shards that are to be emptied give each bucket, the heaviest first, to the shard that is
then least filled. Then, as long as it helps, the fullest shard gives a bucket to the emptiest: only what it has above
its fair part, and only what the other lacks, so that nothing is moved twice and no more than must be. While both lack
or have much, buckets are taken as they come, for a choice by weight would leave one shard with many small buckets that
grow; for the last few, the bucket that fits best is taken.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

import msgspec

from denizen import limits
from denizen.control.balance import NOTHING, balance, loads, weights
from denizen.control.plan import BalanceBy, Plan, PlannedMove
from denizen.control.ports import BucketMeasures
from denizen.control.state import COMMITTED, ControlState, RebalanceStatus, ShardStatus
from denizen.errors import Refused
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, ShardId

Measured = Mapping[Bucket, BucketMeasures]


def plan_rebalance(
    state: ControlState, measures: Measured, by: BalanceBy, degraded: Mapping[ShardId, str] | None = None
) -> Plan:
    """The moves that make the shards even. No moves if they are. `Refused` while it cannot be judged or done."""
    bucket_map = _ready(state)
    refuse_degraded(state.shards, degraded or {})
    placing = _Placing(bucket_map, weights(state), loads(measures, by))
    placing.empty_shards()
    if placing.is_uneven():
        placing.even_out()
    return _plan(state, bucket_map, measures, by, placing.moves)


def plan_moves(
    state: ControlState,
    measures: Measured,
    wishes: Sequence[tuple[Bucket, ShardId]],
    degraded: Mapping[ShardId, str] | None = None,
) -> Plan:
    """A plan of just these moves, as an operator wishes. `Refused` if one of them cannot be. Degraded shards that give
    and take nothing do not matter.
    """
    bucket_map = _ready(state)
    wanted = dict(wishes)
    if len(wanted) != len(wishes):
        raise Refused("a bucket is named twice", reason="bad_plan")
    for bucket, target in wanted.items():
        shard = state.shards.get(target)
        if shard is None or shard.status is not ShardStatus.ACTIVE:
            raise Refused(f"shard {target} cannot take buckets: it is not active", reason="target_not_active")
        if not 0 <= bucket < BUCKETS:
            raise Refused(f"there is no bucket {bucket}; they are 0 to {BUCKETS - 1}", reason="no_such_bucket")
    moves = [(bucket, target) for bucket, target in wanted.items() if bucket_map.shard_of(bucket) != target]
    plan = _plan(state, bucket_map, measures, BalanceBy.USERS, moves)
    refuse_degraded(plan.shards, degraded or {})
    return plan


def refuse_degraded(shards: Iterable[ShardId], degraded: Mapping[ShardId, str]) -> None:
    """`Refused` if one of these shards is degraded: a move from or to it would only wait."""
    for shard in shards:
        if shard in degraded:
            raise Refused(f"shard {shard} is degraded: {degraded[shard]}", reason="shard_degraded")


def _ready(state: ControlState) -> BucketMap:
    """The map, unless this is no time for a plan."""
    if state.map is None:
        raise Refused("the deployment is not founded yet: start it with `denizen up`", reason="not_founded")
    for shard in state.shards.values():
        if shard.status is ShardStatus.JOINING:
            raise Refused(f"shard {shard.id} is still joining: wait, or remove it", reason="shard_joining")
    under_way = state.rebalance is not None and state.rebalance.status in (
        RebalanceStatus.RUNNING,
        RebalanceStatus.PAUSED,
    )
    if under_way or any(move.stage not in COMMITTED for move in state.moves.values()):
        raise Refused("a rebalance is under way: let it end, or cancel it", reason="rebalance_under_way")
    return state.map


class _Placing:
    """Who has which buckets while the plan grows."""

    def __init__(self, bucket_map: BucketMap, weight: Mapping[ShardId, float], load: list[float]) -> None:
        self._weight = weight
        self._load = load
        self._buckets: dict[ShardId, list[Bucket]] = {
            shard: bucket_map.buckets_of(shard) if shard in bucket_map.shards else [] for shard in weight
        }
        self._held = {shard: sum(load[bucket] for bucket in held) for shard, held in self._buckets.items()}
        parts = sum(weight.values())
        self._fair = {shard: sum(load) * part / parts for shard, part in weight.items() if part > 0} if parts else {}
        self.moves: list[tuple[Bucket, ShardId]] = []

    def empty_shards(self) -> None:
        """Shards without a part give everything away, to whom it leaves least filled."""
        leaving = [bucket for shard in self._buckets if shard not in self._fair for bucket in self._buckets[shard]]
        if leaving and not self._fair:
            raise Refused("no active shard is left to take the buckets", reason="last_shard")
        for bucket in sorted(leaving, key=lambda bucket: (-self._load[bucket], bucket)):
            load = self._load[bucket]
            target = min(self._fair, key=lambda shard: ((self._held[shard] + load) / self._fair[shard], shard))
            self._held[target] += load
            self.moves.append((bucket, target))

    def is_uneven(self) -> bool:
        """Whether it is worth moving anything: a shard has clearly more or less than its fair part."""
        filled = [self._filled(shard) for shard in self._fair]
        return bool(filled) and (max(filled) > limits.balance_tolerated or min(filled) < 2.0 - limits.balance_tolerated)

    def even_out(self) -> None:
        """From the fullest to the emptiest, until no bucket helps. Who was given a bucket gives none."""
        givers = {shard: _Giver(held, self._load) for shard, held in self._buckets.items() if shard in self._fair}
        for _, target in self.moves:
            givers.pop(target, None)
        while len(self._fair) > 1 and givers:
            source = max(givers, key=lambda shard: (self._filled(shard), shard))
            target = min(self._fair, key=lambda shard: (self._filled(shard), shard))
            bucket = givers[source].take(self._room(source, target)) if source != target else None
            if bucket is None:
                del givers[source]  # it has nothing that helps; perhaps the next one has
                continue
            givers.pop(target, None)
            self._held[source] -= self._load[bucket]
            self._held[target] += self._load[bucket]
            self.moves.append((bucket, target))

    def _filled(self, shard: ShardId) -> float:
        return self._held[shard] / self._fair[shard]

    def _room(self, source: ShardId, target: ShardId) -> "_Room":
        excess, lack = self._held[source] - self._fair[source], self._fair[target] - self._held[target]
        helps = (self._filled(source) * (1 - 1e-9) - self._filled(target)) * self._fair[target]
        return _Room(min(excess, lack), min(excess * limits.balance_overshoot, helps))


class _Room(NamedTuple):
    """What a bucket may weigh: `fits` at best; less than `helps`, or both shards would not be nearer to each other."""

    fits: float
    helps: float


class _Giver:
    """The buckets that a shard may give, each once."""

    def __init__(self, buckets: Sequence[Bucket], load: list[float]) -> None:
        self._load = load
        self._by_load = sorted((load[bucket], bucket) for bucket in buckets)
        self._by_number = sorted(buckets, reverse=True)
        self._heaviest = self._by_load[-1][0] if self._by_load else 0.0

    def take(self, room: _Room) -> Bucket | None:
        """A bucket whose leaving helps. While there is much to give, the next one; then the one that fits best."""
        if room.fits > limits.balance_coarse_buckets * self._heaviest and self._by_number:
            bucket = self._by_number.pop()
            self._by_load.pop(bisect_left(self._by_load, (self._load[bucket], bucket)))
            return bucket
        at = bisect_right(self._by_load, (room.fits, BUCKETS)) - 1
        if at < 0 and self._by_load and self._by_load[0][0] < room.helps:
            at = 0
        if at < 0:
            return None
        _, bucket = self._by_load.pop(at)
        self._by_number.remove(bucket)
        return bucket


def _plan(
    state: ControlState,
    bucket_map: BucketMap,
    measures: Measured,
    by: BalanceBy,
    moves: Sequence[tuple[Bucket, ShardId]],
) -> Plan:
    planned = tuple(
        PlannedMove(bucket, bucket_map.shard_of(bucket), target, weighed.users, weighed.bytes)
        for bucket, target in moves
        for weighed in (measures.get(bucket, NOTHING),)
    )
    before = {Bucket(bucket): bucket_map.shard_of(Bucket(bucket)) for bucket in range(BUCKETS)}
    after = before | dict(moves)
    parts = weights(state)
    return Plan(
        id=_identity(state, bucket_map, by, planned),
        by=by,
        map_version=bucket_map.version,
        moves=planned,
        users=sum(move.users for move in planned),
        bytes=sum(move.bytes for move in planned),
        estimate_s=_estimate(planned, state.settings.moves_per_server),
        before=balance(before, parts, measures, by),
        after=balance(after, parts, measures, by),
    )


def _estimate(moves: Sequence[PlannedMove], at_once: int) -> float:
    """As long as the busiest server needs."""
    busy: dict[ShardId, float] = {}
    for move in moves:
        for shard in (move.source, move.target):
            seconds = move.users / limits.estimate_users_per_s + limits.estimate_move_s / at_once
            busy[shard] = busy.get(shard, 0.0) + seconds
    return round(max(busy.values(), default=0.0), 1)


def _identity(state: ControlState, bucket_map: BucketMap, by: BalanceBy, moves: Sequence[PlannedMove]) -> UUID:
    """An id that says what the plan is, and after which one it comes."""
    last = state.rebalance.id if state.rebalance is not None else None
    digest = blake2b(msgspec.msgpack.encode((last, bucket_map.version, by, moves)), digest_size=16).digest()
    return UUID(bytes=digest, version=4)
