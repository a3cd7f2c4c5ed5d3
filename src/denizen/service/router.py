"""The routing layer: each request to the shard that owns its bucket, by one look-up in the map.

The map may be stale, and that is harmless: the shard itself refuses, and the request waits until it is known who serves
the bucket now (see `holding`), then goes there with the same command. Normally the control plane pushes the new map
within a millisecond; a gateway that it does not reach asks the shards themselves. While a bucket is fenced (it is about
to move), writes to it are held for a bounded time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

import asyncpg
import structlog

from denizen import limits
from denizen.errors import DenizenError, Moved, Unavailable
from denizen.events.places import read_places
from denizen.events.reading import require_bucket
from denizen.events.records import Append, NameRecord, Outcome, Result, StoredUser
from denizen.events.store import ShardStore
from denizen.events.stores import ShardStores
from denizen.service.holding import Holds, Place
from denizen.sharding.bucket_map import BucketMap, MapSource
from denizen.sharding.hashing import bucket_of_login_name
from denizen.sharding.ids import Bucket, Epoch, ShardId, UserId, bucket_of
from denizen.users.login_names import LoginName

Answer = TypeVar("Answer")
_log = structlog.get_logger()


class Router:
    """Routes by the newest map it has, corrected by what shards say. `start` it before use."""

    def __init__(self, source: MapSource, stores: ShardStores, hash_seed: int) -> None:
        self._source = source
        self._stores = stores
        self.hash_seed = hash_seed
        self._map: BucketMap | None = None
        self._corrections: dict[Bucket, Place] = {}  # newer than the map, by the word of shards
        self._news: dict[Bucket, float] = {}  # when a bucket was last placed anew, for a moment
        self._holds = Holds(self._look)
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Get the map, open every shard's lanes, and follow the map from now on."""
        await self._use(await self._source.current())
        following = self._stores.follow(self._source, lambda: self.map, self._use)
        self._follower = asyncio.get_running_loop().create_task(following)

    async def stop(self) -> None:
        """Finish what is queued."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await self._holds.stop()
        await self._stores.stop()

    @property
    def map(self) -> BucketMap:
        """The map in use."""
        if self._map is None:
            raise Unavailable("this gateway has no map yet")
        return self._map

    @property
    def stores(self) -> Mapping[ShardId, ShardStore]:
        """The shards of now, by id."""
        return self._stores

    @property
    def held(self) -> int:
        """Requests that wait for buckets on the move."""
        return len(self._holds)

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

    def epoch_of(self, bucket: Bucket) -> Epoch:
        """The bucket's epoch by the map in use."""
        return self.map.epoch_of(bucket)

    # Writes

    def submit(self, append: Append) -> Awaitable[Outcome]:
        """Queue an append without looking at its outcome: `settle` it afterwards."""
        bucket = append.bucket
        return self.store_of(bucket).append(append, self.map.epoch_of(bucket))

    async def append(self, append: Append) -> Outcome:
        """Append, following a moved bucket and waiting out a fence; never MOVED or FENCED."""
        tried = self.map
        outcome = await self.submit(append)
        if outcome.result not in _ELSEWHERE:
            return outcome
        return await self.settle(append, outcome, _place(tried, append.bucket))

    async def settle(self, append: Append, outcome: Outcome, tried: Place | None = None) -> Outcome:
        """The final outcome of an append whose first one is given; `tried`: where it was sent, if that is known."""
        loop = asyncio.get_running_loop()
        result, until = None, 0.0
        while outcome.result in _ELSEWHERE:
            if outcome.result is not result:
                result = outcome.result
                until = loop.time() + (limits.map_lag_s if result is Result.MOVED else limits.fence_hold_s)
            elif loop.time() > until:
                raise _gave_up(append.bucket, result)
            await self._wait_for_news(append.bucket, tried, until)
            tried = self._place_of(append.bucket)
            outcome = await self.submit(append)
        return outcome

    # Reads

    async def user(self, user_id: UserId) -> StoredUser | None:
        """The user's row, deleted or not; None if there is none."""
        bucket = bucket_of(user_id)
        tried = self.map
        try:
            return await self.store_of(bucket).user(user_id)
        except Moved:
            return await self._elsewhere(bucket, _place(tried, bucket), lambda store: store.user(user_id))

    async def name(self, name: LoginName) -> NameRecord | None:
        """Who has this login name."""
        bucket = self.bucket_of_name(name)
        tried = self._place_of(bucket)
        try:
            return await self.store_of(bucket).name(bucket, name)
        except Moved:
            return await self._elsewhere(bucket, tried, lambda store: store.name(bucket, name))

    async def read(self, bucket: Bucket, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        """Run a longer read on the shard of `bucket`; never of what a shard still keeps of a moved bucket."""

        async def current(connection: asyncpg.Connection) -> Answer:
            answer = await ask(connection)
            await require_bucket(connection, bucket)
            return answer

        tried = self._place_of(bucket)
        try:
            return await self.store_of(bucket).read(current)
        except Moved:
            return await self._elsewhere(bucket, tried, lambda store: store.read(current))

    async def _elsewhere(self, bucket: Bucket, tried: Place, ask: Callable[[ShardStore], Awaitable[Answer]]) -> Answer:
        """Ask where the bucket went, as soon as that is known; `Moved` if it does not become known in time."""
        until = asyncio.get_running_loop().time() + limits.map_lag_s
        while True:
            await self._wait_for_news(bucket, tried, until)
            tried = self._place_of(bucket)
            try:
                return await ask(self.store_of(bucket))
            except Moved:
                if asyncio.get_running_loop().time() > until:
                    raise

    # The map

    def _place_of(self, bucket: Bucket) -> Place:
        return _place(self.map, bucket)

    async def _wait_for_news(self, bucket: Bucket, tried: Place | None, until: float) -> None:
        """Return when it is worth trying again. At once, if the bucket was placed anew since it was tried."""
        await self._refresh()
        recent = asyncio.get_running_loop().time() - limits.map_lag_s
        news = self._news.get(bucket, 0.0) > recent if tried is None else self._place_of(bucket) != tried
        if not news:
            await self._holds.wait(bucket, until)

    async def _refresh(self) -> None:
        try:
            found = await self._source.current()
        except (DenizenError, OSError) as error:
            _log.warning("map_not_read", error=type(error).__name__)
            return  # the last map, until there is a newer one
        await self._use(found)

    async def _use(self, found: BucketMap) -> None:
        """Use this map if it is newer; what shards said that is newer still goes over it."""
        if self._map is not None and found.version <= self._map.version:
            return
        await self._stores.open(found.shards)
        self._corrections = {
            bucket: place for bucket, place in self._corrections.items() if place.epoch > found.epochs[bucket]
        }
        self._exchange(found.corrected(self._corrections) if self._corrections else found)
        self._stores.close(found.shards)

    def _exchange(self, newer: BucketMap) -> None:
        older, self._map = self._map, newer
        if older is None:
            return
        now = asyncio.get_running_loop().time()
        changed = newer.changed_from(older)
        self._news = {bucket: since for bucket, since in self._news.items() if now - since < limits.map_lag_s}
        self._news |= dict.fromkeys(changed, now)
        self._holds.wake(changed)

    async def _look(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Place]:
        """Ask every shard whether it serves these buckets now; where one does, the map is corrected."""
        await self._refresh()

        async def ask(connection: asyncpg.Connection) -> dict[Bucket, tuple[Epoch, str]]:
            return await read_places(connection, buckets)

        stores = dict(self._stores)
        answers = await asyncio.gather(*(store.read(ask) for store in stores.values()), return_exceptions=True)
        newest: dict[Bucket, tuple[Epoch, str, ShardId]] = {}
        for shard, answer in zip(stores, answers, strict=True):
            if isinstance(answer, BaseException):
                continue  # it may be the very shard that is lost
            for bucket, (epoch, state) in answer.items():
                if bucket not in newest or epoch > newest[bucket][0]:
                    newest[bucket] = (epoch, state, shard)
        open_now = {bucket: Place(shard, epoch) for bucket, (epoch, state, shard) in newest.items() if state == "open"}
        newer = {bucket: place for bucket, place in open_now.items() if place.epoch > self.map.epoch_of(bucket)}
        if newer:
            _log.info("map_corrected_by_shards", buckets=len(newer), version=self.map.version)
            self._corrections |= newer
            self._exchange(self.map.corrected(newer))
        return {bucket: place for bucket, place in open_now.items() if place == self._place_of(bucket)}


_ELSEWHERE = (Result.MOVED, Result.FENCED)


def _place(bucket_map: BucketMap, bucket: Bucket) -> Place:
    return Place(bucket_map.shard_of(bucket), bucket_map.epoch_of(bucket))


def _gave_up(bucket: Bucket, result: Result) -> DenizenError:
    if result is Result.MOVED:
        return Moved(f"bucket {bucket} moved, and the map does not say where yet; try again")
    return Unavailable(f"bucket {bucket} is moving and took too long; try again")
