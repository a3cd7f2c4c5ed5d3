"""How even the shards are, by users, bytes or requests. Pure; floats only for show and for comparing, in one order."""

from collections.abc import Mapping
from typing import Final

from denizen.control.plan import Balance, BalanceBy, Share
from denizen.control.ports import BucketMeasures
from denizen.control.state import ControlState, ShardStatus
from denizen.sharding.ids import BUCKETS, Bucket, ShardId

NOTHING: Final = BucketMeasures(0, 0, 0.0)
HOLDING: Final = frozenset({ShardStatus.ACTIVE, ShardStatus.DRAINING, ShardStatus.DRAINED})

EMPTY_BUCKET: Final = 0.01
"""What a bucket weighs besides what is in it, in parts of the mean bucket: so empty ones are spread as well."""

EMPTY_BUCKET_MIN: Final = {BalanceBy.USERS: 1.0, BalanceBy.BYTES: 4_096.0, BalanceBy.REQUESTS: 0.1}
"""The least of it. A few users are chance: a young deployment is evened by buckets, where the next ones will come."""


def measure_of(measures: BucketMeasures, by: BalanceBy) -> float:
    """The figure that is to be even."""
    match by:
        case BalanceBy.USERS:
            return float(measures.users)
        case BalanceBy.BYTES:
            return float(measures.bytes)
        case BalanceBy.REQUESTS:
            return measures.requests


def loads(measures: Mapping[Bucket, BucketMeasures], by: BalanceBy) -> list[float]:
    """What each bucket weighs for the planner."""
    plain = [measure_of(measures.get(Bucket(bucket), NOTHING), by) for bucket in range(BUCKETS)]
    base = max(sum(plain) / BUCKETS * EMPTY_BUCKET, EMPTY_BUCKET_MIN[by])
    return [load + base for load in plain]


def weights(state: ControlState) -> dict[ShardId, float]:
    """The part of each shard that may own buckets; 0 for those that are to give everything away."""
    return {
        shard.id: shard.weight if shard.status is ShardStatus.ACTIVE else 0.0
        for shard in state.shards.values()
        if shard.status in HOLDING
    }


def balance(
    owners: Mapping[Bucket, ShardId],
    weight: Mapping[ShardId, float],
    measures: Mapping[Bucket, BucketMeasures],
    by: BalanceBy,
) -> Balance:
    """What each shard holds, and how the fullest one compares with its fair part.

    Where there is next to nothing, as a plan weighs it: what a handful of users says of a shard is chance.
    """
    held: dict[ShardId, list[BucketMeasures]] = {shard: [] for shard in weight}
    for bucket, shard in owners.items():
        held.setdefault(shard, []).append(measures.get(bucket, NOTHING))
    figures = {shard: sum(measure_of(one, by) for one in buckets) for shard, buckets in held.items()}
    if sum(figures.values()) < BUCKETS * EMPTY_BUCKET_MIN[by]:
        figures, weighed = dict.fromkeys(held, 0.0), loads(measures, by)
        for bucket, shard in owners.items():
            figures[shard] += weighed[bucket]
    total, parts = sum(figures.values()), sum(weight.values())
    shares = {}
    for shard, buckets in held.items():
        fair = total * (weight.get(shard, 0.0) / parts if parts else 0.0) or total / max(len(weight), 1)
        shares[shard] = Share(
            buckets=len(buckets),
            users=sum(one.users for one in buckets),
            bytes=sum(one.bytes for one in buckets),
            requests=round(sum(one.requests for one in buckets), 3),
            filled=round(figures[shard] / fair, 6) if fair else 0.0,
        )
    active = [shares[shard].filled for shard, part in weight.items() if part > 0]
    return Balance(max(active, default=0.0), dict(sorted(shares.items())))
