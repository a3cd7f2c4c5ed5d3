"""What every bucket weighs, asked of the shards side by side: the planner's figures."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import asyncpg

from denizen import limits
from denizen.control.ports import BucketMeasures, Measured
from denizen.control.state import ControlState, ShardStatus
from denizen.moving.measures import Scales
from denizen.sharding.ids import Bucket, ShardId

T = TypeVar("T")

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

    async def silent(self, state: ControlState, shards: Iterable[ShardId]) -> Mapping[ShardId, str]:
        """Which of these shards do not answer, and why; they need only take a connection. Shards that hold nothing for
        good are not asked.
        """
        places = self._places()
        asked = [shard for shard in shards if shard in state.shards and state.shards[shard].status in _HOLDING]
        found = await asyncio.gather(*(self._ask(places.get(shard), _nothing) for shard in asked))
        return {shard: answer for shard, answer in zip(asked, found, strict=True) if answer is not None}

    async def _weigh(self, shard: ShardId, place: Mapping[str, Any] | None) -> dict[Bucket, BucketMeasures] | str:
        weights = await self._ask(place, lambda connection: self._scales.weigh(shard, connection))
        if isinstance(weights, str):
            return weights
        return {bucket: BucketMeasures(each.users, each.bytes, each.requests) for bucket, each in weights.items()}

    async def _ask(
        self, place: Mapping[str, Any] | None, what: Callable[[asyncpg.Connection], Awaitable[T]]
    ) -> T | str:
        """The answer of the server there, or why there is none."""
        if place is None:
            return "this process does not know where it is"
        try:
            async with asyncio.timeout(limits.measure_connect_s):
                connection = await asyncpg.connect(**place)
            try:
                async with asyncio.timeout(limits.measure_s):
                    answer = await what(connection)
                await connection.close(timeout=limits.measure_connect_s)
            finally:
                connection.terminate()  # nothing more is waited for
        except TimeoutError:
            return "it does not answer in time"
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return f"it does not answer: {error or type(error).__name__}"
        return answer


async def _nothing(_: asyncpg.Connection) -> None:
    """That it took the connection is enough."""
