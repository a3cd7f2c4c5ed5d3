"""What every bucket weighs, asked of the shards side by side: the planner's figures."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg

from denizen import limits
from denizen.control.ports import BucketMeasures, Measured
from denizen.control.state import ControlState, ShardStatus
from denizen.sharding.ids import Bucket, ShardId

_MEASURE = """
with size as (
    select (pg_total_relation_size('denizen.events') + pg_total_relation_size('denizen.users')
            + pg_total_relation_size('denizen.login_names')) / greatest(sum(head), 1) as per_event
    from denizen.buckets
), counted as (
    select bucket, count(*) as users from denizen.users group by bucket
)
select b.bucket, coalesce(c.users, 0) as users, (b.head * size.per_event)::bigint as bytes
from denizen.buckets b cross join size left join counted c using (bucket)
where b.state in ('open', 'fenced')
"""
_HOLDING = frozenset({ShardStatus.ACTIVE, ShardStatus.DRAINING})


class ShardMeasures:
    """Measures by SQL. `places` says how to connect to each shard, as it is now."""

    def __init__(self, places: Callable[[], Mapping[ShardId, Mapping[str, Any]]]) -> None:
        self._places = places

    async def measure(self, state: ControlState) -> Measured:
        """Every bucket, on the shard that owns it; a shard that does not answer is degraded."""
        places = self._places()
        shards = [shard.id for shard in state.shards.values() if shard.status in _HOLDING]
        buckets: dict[Bucket, BucketMeasures] = {}
        degraded: dict[ShardId, str] = {}
        found = await asyncio.gather(*(self._ask(places.get(shard)) for shard in shards))
        for shard, answer in zip(shards, found, strict=True):
            if isinstance(answer, str):
                degraded[shard] = answer
            else:
                buckets.update(answer)
        return Measured(buckets, degraded)

    async def _ask(self, place: Mapping[str, Any] | None) -> dict[Bucket, BucketMeasures] | str:
        if place is None:
            return "this process does not know where it is"
        try:
            async with asyncio.timeout(limits.measure_s):
                connection = await asyncpg.connect(**place)
                try:
                    rows = await connection.fetch(_MEASURE)
                finally:
                    await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return f"it does not answer: {error or type(error).__name__}"
        return {Bucket(row["bucket"]): BucketMeasures(row["users"], row["bytes"], 0.0) for row in rows}
