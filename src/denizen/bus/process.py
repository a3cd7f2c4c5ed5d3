"""A process of relays: one for each shard that the map names, until a signal asks to stop."""

import asyncio
import signal

import structlog

from denizen import limits
from denizen.bus.listening import Hear, listen_for_hints
from denizen.bus.relay import Relay
from denizen.bus.rush import Rush
from denizen.bus.settings import BusSettings
from denizen.bus.tasks import end_tasks
from denizen.events.stores import Places, found_places
from denizen.sharding.bucket_map import BucketMap, MapSource
from denizen.sharding.ids import ShardId

_log = structlog.get_logger()


class Relays:
    """A relay for each shard of the newest map; `places` tells where shards are when the map names new ones."""

    def __init__(self, places: Places, source: MapSource, bus: BusSettings) -> None:
        self._places = places
        self._source = source
        self._bus = bus
        self._tasks: dict[ShardId, asyncio.Task[None]] = {}
        self.rush = Rush()
        self.hearers: dict[ShardId, Hear] = {}

    async def run(self) -> None:
        """Follow the map until cancelled. A relay ends by itself only by a defect, which is raised."""
        try:
            found = await self._source.current()
            while True:
                whole = await self._bring_to(found)
                following = asyncio.ensure_future(self._source.newer_than(found.version))
                wait_s = None if whole else limits.map_retry_s
                await asyncio.wait(
                    [following, *self._tasks.values()], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
                if following.done():
                    found = following.result()
                else:
                    await end_tasks([following])
                for task in self._tasks.values():
                    if task.done():
                        task.result()
        finally:
            await end_tasks(list(self._tasks.values()))

    async def _bring_to(self, found: BucketMap) -> bool:
        """Begin and end relays, so that each shard of this map has one; False if some shard is nowhere to be found."""
        for shard in self._tasks.keys() - set(found.shards):
            self.hearers.pop(shard, None)
            await end_tasks([self._tasks.pop(shard)])
            _log.info("relay_ended", shard=shard)
        lacking = [shard for shard in found.shards if shard not in self._tasks]
        if not lacking:
            return True
        places = found_places(self._places, lacking)
        for shard in lacking:
            if shard in places:
                relay = Relay(shard, dict(places[shard]), self._bus, self.rush)
                self.hearers[shard] = relay.hear
                self._tasks[shard] = asyncio.get_running_loop().create_task(relay.run())
        started = [shard for shard in lacking if shard in self._tasks]
        if started:
            _log.info("relays_started", shards=started)
        return started == lacking


async def serve_relays(places: Places, source: MapSource, bus: BusSettings) -> None:
    """Run relays until SIGTERM or SIGINT. One that ends by itself has a defect: all end, and it is raised."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    relays = Relays(places, source, bus)
    tasks = [loop.create_task(relays.run()), loop.create_task(listen_for_hints(bus, relays.rush, relays.hearers))]
    stopping = loop.create_task(stop.wait())
    try:
        ended, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await end_tasks([stopping, *tasks])
    _log.info("relays_stopped")
