"""Healing: reading from one shard's PostgreSQL what the bus did not bring."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any

import asyncpg
import structlog
from msgspec import Struct

from denizen import limits
from denizen.bus.sequencer import Sequencer
from denizen.bus.shards import Shards
from denizen.errors import DenizenError
from denizen.events.codec import NAMES
from denizen.events.reading import event_of
from denizen.events.records import RecordedEvent
from denizen.events.tailing import read_after, read_heads
from denizen.sharding.ids import Bucket, ShardId

_log = structlog.get_logger()


class StoredEvent(Struct, frozen=True, gc=False):
    """An event as PostgreSQL gave it, not decoded yet."""

    bucket: Bucket
    sequence: int
    row: Sequence[Any]

    @property
    def type(self) -> str:
        """The name of its type, or its number if this program does not know it."""
        return NAMES.get(self.row[4]) or str(self.row[4])

    def record(self) -> RecordedEvent:
        """The event; `UnknownEvent` if its type or schema is newer than this program."""
        return event_of(self.row)


class Healer:
    """Looks every moment whether buckets of one shard are to be healed, and reads their events."""

    def __init__(
        self,
        shard: ShardId,
        shards: Shards,
        sequencer: Sequencer,
        until_room: Callable[[], Awaitable[None]],
        healed: Callable[[int], None],
    ) -> None:
        self._shard = shard
        self._shards = shards
        self._sequencer = sequencer
        self._until_room = until_room
        self._healed = healed
        self._asked = -inf  # when PostgreSQL was last asked for the heads
        self._silent = False  # the shard does not answer
        self.heard = -inf  # when a relay last told the heads
        self.task: asyncio.Task[None] | None = None

    @property
    def told(self) -> float:
        """When the shard or its relay last said how far the buckets are."""
        return max(self.heard, self._asked)

    def start(self) -> None:
        """Begin, with a look at every head: the feed may start far behind. Who starts it ends its `task`."""
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._ask_heads(loop.time())
                more = await self._read(loop.time())
                self._silent = False
            except (DenizenError, asyncpg.PostgresError, OSError, TimeoutError) as error:
                if not self._silent:
                    _log.warning("feed_without_shard", shard=self._shard, error=str(error) or type(error).__name__)
                self._silent, more = True, False
                await asyncio.sleep(limits.feed_poll_s)
            if not more:
                await asyncio.sleep(limits.feed_tick_s)

    async def _ask_heads(self, now: float) -> None:
        """Ask PostgreSQL for the heads, at the start and while no relay tells them."""
        told = now - self.heard < limits.feed_heads_silence_s
        if self._asked > 0 and (told or now - self._asked < limits.feed_poll_s):
            return
        buckets = self._shards.map.buckets_of(self._shard)
        if buckets:
            heads = await self._shards.read(buckets[0], read_heads)
            self._sequencer.note_heads(heads, now)
        self._asked = now

    async def _read(self, now: float) -> bool:
        """Read what is due; whether there may be more."""
        bucket_map = self._shards.map
        due = self._sequencer.due(
            now, lambda bucket: bucket_map.shard_of(bucket) == self._shard, limits.feed_heal_buckets_max
        )
        if not due:
            return False
        await self._until_room()
        rows = await self._shards.read(next(iter(due)), lambda connection: _events(connection, due))
        now = asyncio.get_running_loop().time()
        self._healed(self._sequencer.offer([StoredEvent(row[0], row[1], row) for row in rows], now))
        self._sequencer.healed(due, now + limits.feed_grace_s)
        return bool(rows)


async def _events(connection: asyncpg.Connection, after: Mapping[Bucket, int]) -> list[asyncpg.Record]:
    return await read_after(
        connection,
        after,
        bucket_events_max=limits.feed_heal_bucket_events_max,
        events_max=limits.feed_heal_events_max,
    )
