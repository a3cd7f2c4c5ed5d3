"""States and measures for tests of the control plane's pure side."""

from random import Random
from uuid import UUID

from msgspec.structs import replace

from denizen.control.ports import BucketMeasures
from denizen.control.state import ControlState, Shard, ShardStatus
from denizen.sharding.bucket_map import initial_map
from denizen.sharding.ids import BUCKETS, Bucket, ShardId


def a_state(owners: int, added: int = 0, draining: int = 0) -> ControlState:
    """Shards s1 … that own all buckets, then some that own none; the first of them draining."""
    names = [ShardId(f"s{number}") for number in range(1, owners + added + 1)]
    bucket_map = replace(initial_map(names[:owners]), shards=tuple(names))
    shards = {
        name: Shard(name, None, 1.0, ShardStatus.DRAINING if number < draining else ShardStatus.ACTIVE, 0, 0)
        for number, name in enumerate(names)
    }
    return ControlState(deployment=UUID(int=1), map=bucket_map, shards=shards)


def measures_of(mean: int, seed: int) -> dict[Bucket, BucketMeasures]:
    """As a good hash spreads users: about `mean` in each bucket."""
    rng = Random(seed)
    measures = {}
    for bucket in range(BUCKETS):
        users = max(0, round(rng.gauss(mean, mean**0.5)))
        measures[Bucket(bucket)] = BucketMeasures(users, round(users * rng.gauss(900, 20)), 0.0)
    return measures
