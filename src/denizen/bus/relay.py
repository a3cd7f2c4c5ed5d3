"""The relay of a shard: what was committed goes to the stream.

    take the shard's lock → open an outlet where the stream is → again and again: read what is new, publish it

It looks when a gateway hints that something was committed, and at every bucket twice a second whether or not anybody
hinted. Gateways hint less often the more they commit, so that one message carries what many commits wrote; where they
are many, some milliseconds pass from one read to the next at least. And the relay rests in proportion to its work, so
that on a busy machine it does more at a time, for less. In a rush it gives way to the writers (see `rush`).
What goes wrong, with PostgreSQL or with the bus, ends in a new beginning; nothing that it holds in memory is needed.

Caller's duties: `run` until it is no longer wanted, then end that task with `tasks.end_tasks`; pass hints to `hear`.
Any number of relays of one shard may run, anywhere: one publishes, the others wait for its lock.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
import structlog

from denizen import limits
from denizen.bus.connection import TROUBLE, Bus, connected
from denizen.bus.cursors import Cursors
from denizen.bus.metrics import RelayMetrics
from denizen.bus.outlet import Outlet, open_outlet
from denizen.bus.rush import GivingWay, Rush
from denizen.bus.settings import BusSettings
from denizen.bus.source import Source, locked_source
from denizen.bus.streams import ensure_streams
from denizen.errors import DenizenError
from denizen.sharding.ids import Bucket, ShardId

_log = structlog.get_logger()
_RECORDED_AT: Final = 6  # the column of a row


def pause_after(events: int) -> float:
    """Seconds from the beginning of a read that found so many events to the next: under load, fewer and larger ones.

    A message costs as much as many events do. So that lag is short while the load is low, and cost while it is high.
    """
    if events >= limits.bus_batch_events_max:
        return 0.0  # far behind
    return min(limits.bus_relay_pause_min_s + events * limits.bus_relay_pause_event_s, limits.bus_relay_pause_max_s)


class Relay:
    """Publishes one shard's events. `connect_args` are those of `asyncpg.connect` for its primary."""

    def __init__(self, shard: ShardId, connect_args: dict[str, Any], bus: BusSettings, rush: Rush) -> None:
        self.shard = shard
        self.published = 0  # events, since the start
        self.leading = False
        self._connect_args = connect_args
        self._bus = bus
        self._giving_way = GivingWay(rush, bus.give_way_s)
        self._wake = asyncio.Event()
        self._cursors: Cursors | None = None
        self._metrics = RelayMetrics(shard)
        self._warned: str | None = None

    @property
    def level(self) -> bool:
        """Whether it publishes, and has published everything that it knows of."""
        return self.leading and self._cursors is not None and not self._cursors.behind

    async def run(self) -> None:
        """Publish whenever the shard, its lock and the bus are there; never returns."""
        pause = limits.bus_retry_s_min
        while True:
            try:
                async with locked_source(self._connect_args) as source:
                    pause = limits.bus_retry_s_min
                    self._lead(True)
                    await self._serve(source)
            except (DenizenError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._warn("relay_without_shard", error)
            finally:
                self._lead(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, limits.bus_retry_s_max)

    async def _serve(self, source: Source) -> None:
        """Publish from this source for as long as it answers."""
        pause = limits.bus_retry_s_min
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with connected(self._bus, f"relay {self.shard}") as bus:
                    await self._publish_all(source, bus)
            except asyncpg.PostgresError:
                raise
            except TROUBLE as error:
                self._warn("relay_in_doubt", error)
            finally:
                self._cursors = None
            if asyncio.get_running_loop().time() - began > limits.bus_retry_s_max:
                pause, self._warned = limits.bus_retry_s_min, None
            await asyncio.sleep(pause)
            pause = min(pause * 2, limits.bus_retry_s_max)
            await source.heads()  # is it still ours?

    async def _publish_all(self, source: Source, bus: Bus) -> None:
        await ensure_streams(bus, self._bus)
        outlet, self._cursors = await open_outlet(bus, self.shard)
        self._metrics.resumes.inc()
        loop = asyncio.get_running_loop()
        look_at = check_at = loop.time()
        while True:
            began = loop.time()
            if began >= look_at:
                look_at = loop.time() + limits.bus_heads_interval_s
                self._cursors.see(await source.heads())
                self._metrics.behind.set(self._cursors.behind)
                if loop.time() >= check_at:
                    check_at = loop.time() + limits.bus_check_interval_s
                    await outlet.check()
                await outlet.tell_heads(self._cursors)
            events_max = self._giving_way.events_max(limits.bus_batch_events_max)
            events = await self._publish_some(source, outlet, self._cursors, events_max)
            bus.check()
            ended = loop.time()
            worked = ended - began
            far_behind = events >= events_max
            rest = 0.0 if far_behind else min(worked * limits.event_plane_rest, limits.bus_relay_pause_max_s)
            if not far_behind:
                self._giving_way.caught_up()
            rest = max(rest, self._giving_way.rest(far_behind=far_behind))
            await asyncio.sleep(max(rest, began + pause_after(events) - ended))
            await self._until(look_at)

    async def _publish_some(self, source: Source, outlet: Outlet, cursors: Cursors, events_max: int) -> int:
        """Read once, and publish what was read; how many events."""
        asked = cursors.next(events_max)
        if not asked:
            return 0
        rows = await source.after(asked, events_max)
        if rows:
            messages = await outlet.publish(rows, cursors)
            self.published += len(rows)
            self._metrics.events.inc(len(rows))
            self._metrics.messages.inc(messages)
            self._metrics.seconds.observe(max(0.0, time.time() - rows[0][_RECORDED_AT] / 1e6))
        if len(rows) < min(events_max, limits.bus_bucket_events_max):  # no limit of the read was reached: that was all
            cursors.settle()
        return len(rows)

    async def _until(self, moment: float) -> None:
        """Wait for a hint, or that moment; not at all while there is more to publish."""
        if self._cursors is not None and self._cursors.behind:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout_at(moment):
                await self._wake.wait()
        except TimeoutError:
            return

    def hear(self, hint: Mapping[Bucket, int]) -> None:
        """These sequences of the shard's buckets were committed, somebody says; see `listening`."""
        if self._cursors is not None and self._cursors.hear(hint):
            self._wake.set()

    def _warn(self, event: str, error: BaseException) -> None:
        """Say it once, not at every attempt."""
        text = str(error) or type(error).__name__
        if text != self._warned:
            _log.warning(event, shard=self.shard, error=text)
        self._warned = text

    def _lead(self, leading: bool) -> None:
        self.leading = leading
        self._metrics.leading.set(leading)
