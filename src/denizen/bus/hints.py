"""The gateway's hint to relays: "I have just committed these sequences", and whether its writes queue (see `rush`).

Appends never wait for it. A lane's call after each group only remembers the newest sequences of each bucket; a
task of its own sends them, a few milliseconds' worth at a time. Without a bus they are forgotten: relays look by
themselves twice a second.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from denizen import limits
from denizen.bus.connection import TROUBLE, Bus, connected
from denizen.bus.messages import Hint, encode_hint
from denizen.bus.metrics import hints_sent
from denizen.bus.settings import HINT_SUBJECT, BusSettings
from denizen.bus.tasks import end_tasks
from denizen.events.appending import Appended, Write
from denizen.events.records import Outcome
from denizen.sharding.ids import Bucket, ShardId


def pause_after(buckets: int) -> float:
    """Seconds to wait after hints about so many buckets: under load, fewer and larger ones.

    Hints set the pace of the whole event plane: relays read when they hear one, and each read, message and batch
    costs as much as many events do.
    """
    return min(limits.bus_hint_pause_min_s + buckets * limits.bus_hint_pause_bucket_s, limits.bus_hint_pause_max_s)


class Hinter:
    """Sends hints for all shards of a gateway, as long as it is started."""

    def __init__(self, bus: BusSettings) -> None:
        self._settings = bus
        self._news: dict[ShardId, dict[Bucket, int]] = {}
        self._groups = self._writes = 0  # since the last hint
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._bus: Bus | None = None

    def start(self) -> None:
        """Begin to connect and to send, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Send the last hints, if that is quick, and close the connection."""
        with suppress(*TROUBLE):
            async with asyncio.timeout(limits.bus_last_hint_s):
                if self._bus is not None:
                    await self._send(self._bus)
        await end_tasks([self._task])

    @property
    def connected(self) -> bool:
        """Whether hints are sent now."""
        return self._bus is not None

    def of(self, shard: ShardId) -> Appended:
        """What the shard's lanes call when a group was committed. It never waits and never fails."""

        def appended(writes: Sequence[Write], outcomes: Sequence[Outcome]) -> None:
            if self._bus is None:
                return
            self._groups += 1
            self._writes += len(writes)
            news = self._news.setdefault(shard, {})
            for write, outcome in zip(writes, outcomes, strict=True):
                if outcome.sequence:  # none where it was refused
                    bucket = write.append.bucket
                    news[bucket] = max(outcome.sequence, news.get(bucket, 0))
            self._wake.set()

        return appended

    async def _run(self) -> None:
        pause = limits.bus_retry_s_min
        while True:
            try:
                async with connected(self._settings, "gateway") as self._bus:
                    pause = limits.bus_retry_s_min
                    await self._serve(self._bus)
            except TROUBLE:
                pass
            finally:
                self._bus = None
                self._news.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, limits.bus_retry_s_max)

    async def _serve(self, bus: Bus) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.bus_retry_s_max):
                    await self._wake.wait()
            bus.check()
            self._wake.clear()
            await asyncio.sleep(pause_after(await self._send(bus)))

    async def _send(self, bus: Bus) -> int:
        """Send what there is; how many buckets that were."""
        news, self._news = self._news, {}
        group, self._groups, self._writes = self._writes / max(1, self._groups), 0, 0
        buckets = sum(len(heads) for heads in news.values())
        if buckets:
            await bus.client.publish(HINT_SUBJECT, encode_hint(Hint(news, group)))
            hints_sent.inc()
        return buckets
