"""How a feed reaches PostgreSQL: by the map, whichever shard a bucket lives on today.

`Shards` is a port; a gateway's router is one. `ShardReaders` is for processes that only read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import asyncpg

from denizen.errors import Unavailable
from denizen.events.stores import Places, ShardStores
from denizen.sharding.bucket_map import BucketMap, MapSource
from denizen.sharding.ids import Bucket, ShardId

Answer = TypeVar("Answer")


class Shards(Protocol):
    """The shards of a deployment, for reading."""

    @property
    def map(self) -> BucketMap:
        """The newest map known here."""
        ...

    async def read(self, bucket: Bucket, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        """Run a read on the shard that owns `bucket`; `Unavailable` if it does not answer."""
        ...


class ShardReaders:
    """A few connections to each shard, made when they are needed, and the map followed.

    `shards` gives the arguments of `asyncpg.connect` for each shard, or is asked for them when the map names a new one.
    """

    def __init__(self, shards: Mapping[ShardId, dict[str, Any]] | Places, source: MapSource) -> None:
        self._stores = ShardStores(shards)
        self._source = source
        self._map: BucketMap | None = None
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Get the map, and follow it from now on."""
        await self._use(await self._source.current())
        following = self._stores.follow(self._source, lambda: self.map, self._use)
        self._follower = asyncio.get_running_loop().create_task(following)

    async def stop(self) -> None:
        """Close every connection."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await self._stores.stop()

    async def __aenter__(self) -> "ShardReaders":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def map(self) -> BucketMap:
        """The newest map known here."""
        if self._map is None:
            raise Unavailable("the bucket map was not read yet")
        return self._map

    async def read(self, bucket: Bucket, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        """Run a read on the shard that owns `bucket`; `Unavailable` if it does not answer."""
        shard = self.map.shard_of(bucket)
        store = self._stores.get(shard)
        if store is None:
            raise Unavailable(f"shard {shard} is new to this process")
        return await store.read(ask)

    async def _use(self, found: BucketMap) -> None:
        await self._stores.open(found.shards)
        self._map = found
        self._stores.close(found.shards)
