"""The shards that a process uses: opened when the map first names them, closed when it names them no longer.

Where a shard is, is asked only then (`Places`), so a process learns of new shards without a restart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import structlog

from denizen import limits
from denizen.errors import DenizenError
from denizen.events.store import ShardStore
from denizen.sharding.bucket_map import BucketMap, MapSource
from denizen.sharding.ids import ShardId

Arguments = dict[str, Any]
Places = Callable[[], Mapping[ShardId, Arguments]]
"""Where each shard is now: the arguments of `asyncpg.connect`."""

Open = Callable[[ShardId, Arguments], ShardStore]
_log = structlog.get_logger()


def places_of(shards: Mapping[ShardId, Arguments] | Places) -> Places:
    """The places of shards that are known beforehand, or that are asked for."""
    return shards if callable(shards) else lambda: shards


def found_places(places: Places, lacking: Sequence[ShardId]) -> Mapping[ShardId, Arguments]:
    """The places, asked for these shards; none, with a word in the log, if they cannot be told now."""
    try:
        return places()
    except (DenizenError, OSError) as error:
        _log.warning("shards_not_found", shards=lacking, error=str(error))
        return {}


class ShardStores(Mapping[ShardId, ShardStore]):
    """Started stores, by shard. `open` before the map that names a shard is used, `close` after."""

    def __init__(self, places: Mapping[ShardId, Arguments] | Places, open: Open = ShardStore) -> None:
        self._places = places_of(places)
        self._open = open
        self._stores: dict[ShardId, ShardStore] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __getitem__(self, shard: ShardId) -> ShardStore:
        return self._stores[shard]

    def __iter__(self) -> Iterator[ShardId]:
        return iter(list(self._stores))

    def __len__(self) -> int:
        return len(self._stores)

    async def open(self, named: Iterable[ShardId]) -> bool:
        """Open the shards that are not open yet; whether all of them are open now."""
        lacking = [shard for shard in named if shard not in self._stores]
        if not lacking:
            return True
        places = found_places(self._places, lacking)
        for shard in lacking:
            if shard in places:
                store = self._open(shard, dict(places[shard]))
                await store.start()
                self._stores[shard] = store
        return all(shard in self._stores for shard in lacking)

    async def follow(
        self, source: MapSource, known: Callable[[], BucketMap], use: Callable[[BucketMap], Awaitable[None]]
    ) -> None:
        """For ever: give `use` each map that is newer than the `known` one, and look for shards that are not open."""
        while True:
            try:
                whole = await self.open(known().shards)  # a shard may not have been found at first
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if whole else limits.map_retry_s):
                        await use(await source.newer_than(known().version))
            except (DenizenError, OSError) as error:  # go on with the last map
                _log.warning("map_not_followed", error=type(error).__name__)
                await asyncio.sleep(limits.map_retry_s)

    def close(self, named: Iterable[ShardId]) -> None:
        """Begin to close the shards that are not named any more; what they have queued is finished."""
        for shard in self._stores.keys() - set(named):
            task = asyncio.get_running_loop().create_task(self._stores.pop(shard).stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Finish what is queued, and close everything."""
        stores, self._stores = self._stores, {}
        await asyncio.gather(*(store.stop() for store in stores.values()), *self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
