"""The processes of the bus benchmark: relays in one, a feed in another, each a fresh interpreter on a loop of uvloop.

They are told what to do by the arguments of their start, and end when their pipe says so.
"""

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from denizen.bus.feed import EventFeed
from denizen.bus.listening import listen_for_hints
from denizen.bus.relay import Relay
from denizen.bus.rush import Rush
from denizen.bus.settings import BusSettings
from denizen.bus.shards import ShardReaders
from denizen.bus.tasks import end_tasks
from denizen.events.sealing import use
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, ShardId
from denizen.testing.gateway import KEYRING
from denizen.testing.maps import FixedMap

Shards = Mapping[ShardId, dict[str, Any]]


class Child:
    """A process of the benchmark."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        self.pid = self.process.pid or 0

    def ask(self, what: str) -> Any:
        """What the process knows about this."""
        self._pipe.send(what)
        return self._pipe.recv()

    def stop(self) -> None:
        """End it."""
        self._pipe.send("stop")
        self.process.join(10)
        self.process.kill()


@contextlib.contextmanager
def children(*started: Child) -> Iterator[tuple[Child, ...]]:
    """These processes, for the length of a `with` block."""
    try:
        yield started
    finally:
        for child in started:
            child.stop()


def run_relays(pipe: Connection, shards: Shards, bus: BusSettings) -> None:
    """A relay for each shard; tells how many events they published."""
    use(KEYRING)
    rush = Rush()
    relays = [Relay(shard, arguments, bus, rush) for shard, arguments in shards.items()]

    async def serve() -> None:
        tasks = [asyncio.create_task(relay.run()) for relay in relays]
        tasks.append(asyncio.create_task(listen_for_hints(bus, rush, {relay.shard: relay.hear for relay in relays})))
        await _answer(pipe, {"published": lambda: sum(relay.published for relay in relays)})
        await end_tasks(tasks)

    uvloop.run(serve())


def run_feed(pipe: Connection, shards: Shards, bus: BusSettings, bucket_map: BucketMap) -> None:
    """A feed of everything; tells when (monotonic) each event came, and how many from where."""
    use(KEYRING)
    came: dict[tuple[int, int], float] = {}
    late: list[float] = []  # milliseconds by which a timer rang late: what the machine itself adds to any lag

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            late.append((time.monotonic() - before - 0.02) * 1000)

    async def take(feed: EventFeed) -> None:
        while True:
            batch = await feed.next_batch(5_000, 1.0)
            now = time.monotonic()
            came.update(((event.position.bucket, event.position.sequence), now) for event in batch.events)

    async def serve() -> None:
        async with (
            ShardReaders(shards, FixedMap(bucket_map)) as readers,
            EventFeed(bus, readers, {Bucket(bucket): 0 for bucket in range(BUCKETS)}, name="bench") as feed,
        ):
            tasks = [asyncio.create_task(take(feed)), asyncio.create_task(tick())]
            await _answer(pipe, {"counts": feed.counts, "came": lambda: dict(came), "late": lambda: list(late)})
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    uvloop.run(serve())


async def _answer(pipe: Connection, known: Mapping[str, Callable[[], Any]]) -> None:
    """Answer questions until the answer is to stop, or nobody is left to ask."""
    while True:
        try:
            question = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        if question == "stop":
            return
        await asyncio.to_thread(pipe.send, known[question]())
