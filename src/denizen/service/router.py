"""The routing layer: each request to the shard that owns its bucket, by one look-up in the map.

The map may be stale, and that is harmless: the shard itself refuses, the router fetches the map and asks once more
with the same command. While a bucket is fenced (it is about to move), writes to it are held here for a bounded time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import asyncpg
import structlog

from denizen import limits
from denizen.errors import DenizenError, Moved, Unavailable
from denizen.events.reading import require_bucket
from denizen.events.records import Append, NameRecord, Outcome, Result, StoredUser
from denizen.events.store import ShardStore
from denizen.sharding.bucket_map import BucketMap, MapSource
from denizen.sharding.hashing import bucket_of_login_name
from denizen.sharding.ids import Bucket, Epoch, ShardId, UserId, bucket_of
from denizen.users.login_names import LoginName

Answer = TypeVar("Answer")
_log = structlog.get_logger()


class Router:
    """Routes by the newest map it has. `start` it before use."""

    def __init__(self, source: MapSource, stores: Mapping[ShardId, ShardStore], hash_seed: int) -> None:
        self._source = source
        self._stores = stores
        self.hash_seed = hash_seed
        self._map: BucketMap | None = None
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Get the map, open every shard's lanes, and follow the map from now on."""
        self._map = await self._source.current()
        for store in self._stores.values():
            await store.start()
        self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Finish what is queued."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await asyncio.gather(*(store.stop() for store in self._stores.values()))

    @property
    def map(self) -> BucketMap:
        """The map in use."""
        if self._map is None:
            raise Unavailable("this gateway has no map yet")
        return self._map

    @property
    def stores(self) -> Mapping[ShardId, ShardStore]:
        """The shards, by id."""
        return self._stores

    def bucket_of_name(self, name: LoginName) -> Bucket:
        """The bucket of a normalised login name."""
        return bucket_of_login_name(name, self.hash_seed)

    def store_of(self, bucket: Bucket) -> ShardStore:
        """The shard that owns `bucket`, by the map in use."""
        shard = self.map.shard_of(bucket)
        store = self._stores.get(shard)
        if store is None:
            raise Unavailable(f"shard {shard} is new to this gateway")
        return store

    def submit(self, append: Append) -> Awaitable[Outcome]:
        """Queue an append without looking at its outcome: `settle` it afterwards."""
        return self.store_of(append.bucket).append(append, self.map.epoch_of(append.bucket))

    async def append(self, append: Append) -> Outcome:
        """Append, following a moved bucket once and waiting out a fence; never MOVED or FENCED."""
        return await self.settle(append, await self.submit(append))

    async def settle(self, append: Append, outcome: Outcome) -> Outcome:
        """The final outcome of an append whose first one is given."""
        loop = asyncio.get_running_loop()
        result, since, pause = outcome.result, loop.time(), limits.fence_poll_s
        while outcome.result in (Result.MOVED, Result.FENCED):
            if outcome.result is not result:
                result, since, pause = outcome.result, loop.time(), limits.fence_poll_s
            if result is Result.MOVED and loop.time() - since > limits.map_lag_s:
                raise Moved(f"bucket {append.bucket} moved, and the map does not say where yet; try again")
            if result is Result.FENCED and loop.time() - since > limits.fence_hold_s:
                raise Unavailable(f"bucket {append.bucket} is moving and took too long; try again")
            tried = self._place_of(append.bucket)
            await self._refresh()
            if self._place_of(append.bucket) == tried:  # the map is not newer yet, or the bucket is still fenced
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, limits.fence_poll_max_s)
            outcome = await self.submit(append)
        return outcome

    def _place_of(self, bucket: Bucket) -> tuple[ShardId, Epoch]:
        return self.map.shard_of(bucket), self.map.epoch_of(bucket)

    async def user(self, user_id: UserId) -> StoredUser | None:
        """The user's row, deleted or not; None if there is none."""
        bucket = bucket_of(user_id)
        try:
            return await self.store_of(bucket).user(user_id)
        except Moved:
            await self._refresh()
            return await self.store_of(bucket).user(user_id)

    async def name(self, name: LoginName) -> NameRecord | None:
        """Who has this login name."""
        bucket = self.bucket_of_name(name)
        try:
            return await self.store_of(bucket).name(bucket, name)
        except Moved:
            await self._refresh()
            return await self.store_of(bucket).name(bucket, name)

    async def read(self, bucket: Bucket, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        """Run a longer read on the shard of `bucket`; never of what a shard still keeps of a moved bucket."""

        async def current(connection: asyncpg.Connection) -> Answer:
            answer = await ask(connection)
            await require_bucket(connection, bucket)
            return answer

        try:
            return await self.store_of(bucket).read(current)
        except Moved:
            await self._refresh()
            return await self.store_of(bucket).read(current)

    def epoch_of(self, bucket: Bucket) -> Epoch:
        """The bucket's epoch by the map in use."""
        return self.map.epoch_of(bucket)

    async def _refresh(self) -> None:
        try:
            found = await self._source.current()
        except (DenizenError, OSError) as error:
            _log.warning("map_not_read", error=type(error).__name__)
            return  # the last map, until there is a newer one
        if self._map is None or found.version > self._map.version:
            self._map = found

    async def _follow(self) -> None:
        while True:
            try:
                self._map = await self._source.newer_than(self.map.version)
            except (DenizenError, OSError) as error:  # serve on with the last map
                _log.warning("map_not_followed", error=type(error).__name__)
                await asyncio.sleep(limits.map_retry_s)
