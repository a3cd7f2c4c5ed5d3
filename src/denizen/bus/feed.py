"""A consumer's feed: live from the bus, healed from PostgreSQL. See `batches.Feed` for what it guarantees.

    bus ── events, live ──▶ ┌───────────┐
    bus ── heads ─────────▶ │ sequencer │ ──▶ next_batch
    PostgreSQL ── heads, ─▶ └───────────┘
      events that are missing

The feed follows the end of the stream; everything older comes from PostgreSQL. Relays say every half second how far
their shards are; a feed that hears nothing of a shard asks its PostgreSQL itself. What is known to exist and does not
come within a moment is read from PostgreSQL; what its relay says is not published yet, some seconds later. So the bus
only makes things quick; without any bus the feed polls.

One task listens to the bus, one for each shard heals, and none of them takes more than the consumer can.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf

import structlog
from nats.aio.msg import Msg

from denizen import limits
from denizen.bus.batches import Batch
from denizen.bus.connection import TROUBLE, Bus, connected
from denizen.bus.healing import Healer
from denizen.bus.messages import BadMessage, HeadsMessage, decode_events, decode_heads
from denizen.bus.metrics import feed_metrics
from denizen.bus.sequencer import Sequencer
from denizen.bus.settings import HEADS_SUBJECTS, BusSettings
from denizen.bus.shards import Shards
from denizen.bus.streams import events_stream
from denizen.bus.tail import Tail
from denizen.bus.tasks import end_tasks
from denizen.sharding.ids import Bucket, ShardId

_log = structlog.get_logger()


class EventFeed:
    """A `Feed` over the bus and PostgreSQL. Start it before use, or use it as an async context manager.

    `bus` is None where there is none: then PostgreSQL alone feeds. `shards` must be started already, and outlive the
    feed. `starts` are the buckets to follow, each with the last sequence that was applied (0: from the beginning).
    `name` is what NATS and the metrics call this consumer; `passed` are the names of event types that it does not read.
    """

    def __init__(
        self,
        bus: BusSettings | None,
        shards: Shards,
        starts: Mapping[Bucket, int],
        *,
        name: str = "feed",
        passed: Collection[str] = (),
    ) -> None:
        self._bus = bus
        self._shards = shards
        self._name = name
        self._behind_s = limits.feed_behind_s + (bus.give_way_s if bus else 0)
        self._sequencer = Sequencer(starts, passed)
        self._metrics = feed_metrics(name)
        self._came = asyncio.Event()  # something is ready
        self._room = asyncio.Event()  # the consumer took something
        self._place: tuple[str, int] | None = None  # the stream followed last, and how far
        self._healers: dict[ShardId, Healer] = {}
        self._from_bus = self._from_postgres = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen and to read."""
        self._spawn(self._heal)
        if self._bus is not None:
            self._spawn(self._listen)

    async def stop(self) -> None:
        """End every task. What was not taken comes again to the next feed that starts from the same checkpoints."""
        await end_tasks([*self._tasks, *(healer.task for healer in self._healers.values())])

    async def __aenter__(self) -> "EventFeed":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def next_batch(self, max_events: int, max_wait_s: float) -> Batch:
        """The next events; see `batches.Feed`."""
        if not self._sequencer.ready:
            self._came.clear()
            try:
                async with asyncio.timeout(max_wait_s):
                    await self._came.wait()
            except TimeoutError:
                self._check_tasks()
        batch = self._sequencer.take(max_events)
        self._room.set()
        return batch

    def seek(self, starts: Mapping[Bucket, int]) -> None:
        """Continue each of these buckets after the given sequence; see `batches.Feed`."""
        self._sequencer.seek(starts, _now())
        self._room.set()

    @property
    def silence_s(self) -> float:
        """How old the oldest of the heads is; see `batches.Feed`."""
        told = [healer.told for healer in self._healers.values()]
        return _now() - min(told) if len(told) >= len(self._shards.map.shards) else inf

    @property
    def listening(self) -> bool:
        """Whether events come live from the bus now."""
        return self._metrics.listening

    @property
    def waiting(self) -> int:
        """Events that wait to be taken."""
        return self._sequencer.ready

    def counts(self) -> dict[str, int]:
        """Where the events that came were from: "bus" or "postgres"."""
        return {"bus": self._from_bus, "postgres": self._from_postgres}

    async def _listen(self) -> None:
        """Follow the bus whenever there is one."""
        assert self._bus is not None  # noqa: S101 - only started with one
        pause = limits.bus_retry_s_min
        while True:
            try:
                async with connected(self._bus, self._name) as bus:
                    tail = await self._open(bus)
                    self._metrics.listening = True
                    pause = limits.bus_retry_s_min
                    await self._follow(bus, tail)
            except TROUBLE as error:
                if self._metrics.listening:
                    _log.warning("feed_without_bus", feed=self._name, error=str(error) or type(error).__name__)
            finally:
                self._metrics.listening = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, limits.bus_retry_s_max)

    async def _open(self, bus: Bus) -> Tail:
        """The stream, from where we were if it is still the same, else from now on."""
        facts = await events_stream(bus)
        same = self._place is not None and self._place[0] == facts.identity and self._place[1] <= facts.last
        tail = await Tail.open(bus, self._place[1] if same and self._place else None)
        self._place = (facts.identity, tail.last or facts.last)
        await bus.client.subscribe(HEADS_SUBJECTS, cb=self._hear_heads)
        return tail

    async def _follow(self, bus: Bus, tail: Tail) -> None:
        while True:
            for payload in await tail.messages():
                self._hear_events(payload)
                await self._until_room()
            if self._place is not None:
                self._place = (self._place[0], tail.last)
            bus.check()

    async def _until_room(self) -> None:
        while self._sequencer.ready >= limits.feed_ready_events_max:
            self._room.clear()
            await self._room.wait()

    def _hear_events(self, payload: bytes) -> None:
        try:
            message = decode_events(payload)
        except BadMessage:
            self._metrics.bad_messages.inc()
            return
        events = self._sequencer.offer(message.events, _now())
        self._from_bus += events
        self._metrics.count(self._metrics.live, events, self._sequencer)
        self._notify()

    async def _hear_heads(self, message: Msg) -> None:
        try:
            heads = decode_heads(message.data)
        except BadMessage:
            self._metrics.bad_messages.inc()
            return
        now = _now()
        healer = self._healers.get(ShardId(heads.shard))
        if healer is not None:
            healer.heard = now
        soon, later = heads_to_come(heads, self._sequencer.taken)
        self._sequencer.note_heads(soon, now + limits.feed_grace_s)
        self._sequencer.note_heads(later, now + self._behind_s)

    async def _heal(self) -> None:
        """Have a healer for each shard of the map, of now."""
        while True:
            named = self._shards.map.shards
            for shard in self._healers.keys() - set(named):
                await end_tasks([self._healers.pop(shard).task])
            for shard in named:
                if shard not in self._healers:
                    healer = Healer(shard, self._shards, self._sequencer, self._until_room, self._healed)
                    self._healers[shard] = healer
                    healer.start()
            await asyncio.sleep(limits.feed_poll_s)

    def _healed(self, events: int) -> None:
        self._from_postgres += events
        self._metrics.count(self._metrics.healed, events, self._sequencer)
        self._notify()

    def _notify(self) -> None:
        if self._sequencer.ready:
            self._came.set()

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        self._tasks.append(asyncio.get_running_loop().create_task(run()))

    def _check_tasks(self) -> None:
        """A task of ours that ended has a defect, which must not pass silently."""
        for task in [*self._tasks, *(healer.task for healer in self._healers.values())]:
            if task is not None and task.done() and not task.cancelled():
                task.result()


def heads_to_come(heads: HeadsMessage, taken: Mapping[Bucket, int]) -> tuple[dict[Bucket, int], dict[Bucket, int]]:
    """Heads that come soon or are lost, and those that a relay has yet to publish.

    Where a feed had to overtake its relay once, for that lacks more than it may, it need not wait for it again.
    """
    soon, later = heads.published_of(), dict[Bucket, int]()
    for bucket, published in heads.published.items():
        which = later if published >= taken.get(bucket, 0) else soon
        which[bucket] = heads.heads.get(bucket, published)
    return soon, later


def _now() -> float:
    return asyncio.get_running_loop().time()
