"""The hub: one feed of events for all consumers of a gateway, and the newest of them kept for those who are near.

    EventFeed (bus, healed from PostgreSQL) ──▶ the newest changes, in memory, bounded ──▶ followers
    PostgreSQL ──────────────────────────── what is older than those ─────────────────────▶

It runs while there are consumers, and a little longer; a gateway without consumers pays nothing. What is kept is what
is sent, encoded once for all. A consumer that falls behind what is kept costs nobody memory: it reads from PostgreSQL
until it is near again (see `follower`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from msgspec import Struct

from denizen import limits
from denizen.bus.feed import EventFeed
from denizen.bus.settings import BusSettings
from denizen.bus.shards import Shards
from denizen.bus.tasks import end_tasks
from denizen.errors import DenizenError, Unavailable
from denizen.events.codec import UnknownEvent
from denizen.events.records import RecordedEvent
from denizen.events.tailing import read_heads
from denizen.sharding.ids import BUCKETS, Bucket
from denizen.users.events import UserErased

_log = structlog.get_logger()
Encode = Callable[[RecordedEvent], bytes | None]


class Change(Struct, frozen=True, gc=False):
    """An event as it is sent. `payload` is None for events that are no change of a user (a login name's own)."""

    bucket: int
    sequence: int
    type: str
    payload: bytes | None


class Closing(DenizenError):
    """This gateway stops; another one, or the next one, goes on at the same place."""

    code, status, title, retryable = "stopping", 503, "The gateway stops", True


class Hub:
    """`bus` is None where there is none; `shards` is the gateway's router; `encode` makes what is sent.

    `key` is the deployment's, for cursors.
    """

    def __init__(self, bus: BusSettings | None, shards: Shards, encode: Encode, key: int) -> None:
        self.key = key
        self.encode = encode
        self.shards = shards
        self.reads = asyncio.Semaphore(limits.changes_reads_at_once_max)
        self.end = 0  # changes seen since the start; each has the number before it was counted
        self.taken: list[int] = [0] * BUCKETS  # the last sequence seen of each bucket
        self.floor: list[int] = [0] * BUCKETS  # the last one that is not kept any more, or was never
        self.heads: Mapping[Bucket, int] = {}
        self._bus = bus
        self._kept: list[Change] = []
        self._kept_bytes = 0
        self._news = asyncio.Event()
        self._followers = 0
        self._failure: DenizenError | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ended: list[asyncio.Task[None]] = []
        self._closed = False

    async def stop(self) -> None:
        """Tell every follower that it is over, and end."""
        self._closed = True
        self._fail(Closing("this gateway stops: go on with the last cursor"))
        await self._halt()

    async def join(self) -> None:
        """Count a follower in; the feed runs when this returns. `Unavailable` if the shards do not answer."""
        if self._closed:
            raise Closing("this gateway stops: go on with the last cursor")
        self._followers += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            if self._task is None or self._task.done():
                self._ended = [task for task in self._ended if not task.done()]
                self._failure = None
                self._ready = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._run(self._ready), name="feed of changes")
            if self._ready is not None:
                await asyncio.shield(self._ready)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Count a follower out."""
        self._followers -= 1
        if self._followers == 0 and not self._closed and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(limits.changes_idle_s, self._end_if_idle)

    @property
    def start(self) -> int:
        """The number of the oldest change that is kept."""
        return self.end - len(self._kept)

    def since(self, number: int, changes_max: int) -> Sequence[Change]:
        """Changes from that number on, which must not be before `start`."""
        at = number - self.start
        return self._kept[at : at + changes_max]

    async def wait(self, number: int, seconds: float) -> None:
        """Until there is a change of that number or a later one, or the time is over."""
        self.check()
        if self.end > number:
            return
        news = self._news
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await news.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended the feed, if something did."""
        if self._failure is not None:
            raise self._failure

    async def read_heads(self) -> list[int]:
        """How far each bucket is committed, asked of every shard now."""
        for _ in range(limits.changes_heads_attempts_max):
            found: dict[Bucket, int] = {}
            bucket_map = self.shards.map
            for shard in bucket_map.shards:
                buckets = bucket_map.buckets_of(shard)
                if buckets:
                    found |= await self.shards.read(buckets[0], read_heads)
            if len(found) == BUCKETS:
                return [found[Bucket(bucket)] for bucket in range(BUCKETS)]
            await asyncio.sleep(limits.fence_poll_max_s)  # a bucket is changing hands, and the map is about to say so
        raise Unavailable("buckets are changing hands; try again in a moment")

    async def _run(self, ready: "asyncio.Future[None]") -> None:
        try:
            heads = await self.read_heads()
            self._kept, self._kept_bytes = [], 0
            self.taken, self.floor = list(heads), list(heads)
            self.heads = {Bucket(bucket): head for bucket, head in enumerate(heads)}
            starts = {Bucket(bucket): head for bucket, head in enumerate(heads)}
            async with EventFeed(self._bus, self.shards, starts, name="changes") as feed:
                ready.set_result(None)
                while True:
                    batch = await feed.next_batch(limits.changes_take_max, limits.changes_look_s)
                    self.heads = batch.heads
                    self._take(batch.events)
        except UnknownEvent as error:
            self._fail(Unavailable(f"a newer program has written an event that this gateway does not know: {error}"))
        except DenizenError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a defect here must reach those who wait
            _log.error("feed_of_changes_failed", exc_info=error)
            self._fail(Unavailable("the feed of changes failed; try again"))
        finally:
            if not ready.done():
                ready.set_exception(self._failure or Unavailable("the feed of changes ended"))
                ready.exception()  # whoever waits has it too

    def _take(self, events: Sequence[RecordedEvent]) -> None:
        if not events:
            return
        for event in events:
            position = event.position
            if event.type == UserErased.__name__:
                self._forget(len(self._kept))  # what is kept of the user in plain text; it is read anew if need be
            payload = self.encode(event)
            self._kept.append(Change(position.bucket, position.sequence, event.type, payload))
            self._kept_bytes += len(payload or b"")
            self.taken[position.bucket] = position.sequence
            self.end += 1
        if len(self._kept) >= 2 * limits.changes_kept_max or self._kept_bytes >= limits.changes_kept_bytes_max:
            self._forget(max(len(self._kept) - limits.changes_kept_max, len(self._kept) // 2))
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _forget(self, count: int) -> None:
        """Let the oldest go; who has not had them yet reads them from PostgreSQL."""
        for change in self._kept[:count]:
            self.floor[change.bucket] = change.sequence
            self._kept_bytes -= len(change.payload or b"")
        del self._kept[:count]

    def _fail(self, error: DenizenError) -> None:
        self._failure = error
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _end_if_idle(self) -> None:
        self._idle = None
        if self._followers == 0 and self._task is not None:
            task, self._task = self._task, None  # who comes while it ends begins another
            task.cancel()
            self._ended.append(task)

    async def _halt(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        await end_tasks([self._task, *self._ended])
