"""What every bucket weighs, asked of the shards side by side: the planner's figures."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg

from denizen import limits
from denizen.control.ports import BucketMeasures, Measured
from denizen.control.state import ControlState, ShardStatus
from denizen.moving.measures import Scales
from denizen.sharding.ids import Bucket, ShardId

_HOLDING = frozenset({ShardStatus.ACTIVE, ShardStatus.DRAINING})


class ShardMeasures:
    """Weighs by SQL. `places` says how to connect to each shard, as it is now. It remembers what it saw last, for
    requests are what was written since.
    """

    def __init__(self, places: Callable[[], Mapping[ShardId, Mapping[str, Any]]]) -> None:
        self._places = places
        self._scales = Scales()
        self._looked = False

    async def measure(self, state: ControlState, *, window_s: float = 0.0) -> Measured:
        """Every bucket, on the shard that owns it; a shard that does not answer is degraded.

        The first look has no requests to tell; with a window it looks again after so many seconds.
        """
        silent: Mapping[ShardId, str] = {}
        if window_s and not self._looked:
            silent = (await self._measure(state, silent)).degraded
            await asyncio.sleep(window_s)
        return await self._measure(state, silent)

    async def _measure(self, state: ControlState, silent: Mapping[ShardId, str]) -> Measured:
        """`silent` shards are not asked: they did not answer a moment ago."""
        places = self._places()
        held = [shard.id for shard in state.shards.values() if shard.status in _HOLDING]
        shards = [shard for shard in held if shard not in silent]
        buckets: dict[Bucket, BucketMeasures] = {}
        degraded = dict(silent)
        found = await asyncio.gather(*(self._weigh(shard, places.get(shard)) for shard in shards))
        for shard, answer in zip(shards, found, strict=True):
            if isinstance(answer, str):
                degraded[shard] = answer
            else:
                buckets.update(answer)
        self._looked = True
        return Measured(buckets, degraded)

    async def _weigh(self, shard: ShardId, place: Mapping[str, Any] | None) -> dict[Bucket, BucketMeasures] | str:
        if place is None:
            return "this process does not know where it is"
        try:
            async with asyncio.timeout(limits.measure_connect_s):
                connection = await asyncpg.connect(**place)
            try:
                async with asyncio.timeout(limits.measure_s):
                    weights = await self._scales.weigh(shard, connection)
                await connection.close(timeout=limits.measure_connect_s)
            finally:
                connection.terminate()  # nothing more is waited for
        except TimeoutError:
            return "it does not answer in time"
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return f"it does not answer: {error or type(error).__name__}"
        return {bucket: BucketMeasures(each.users, each.bytes, each.requests) for bucket, each in weights.items()}
