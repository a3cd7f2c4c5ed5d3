"""Benchmark of the bus.

Real PostgreSQL databases as shards, a real NATS server, relays in one process, a feed in another, and appends made by
this one. It tells how long after its acknowledgement an event is delivered (2,000 events/s), what relays and feed cost
(10,000 events/s), and how much of the rate of appends is left when both run, and when only hints are sent.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from denizen.bench.bus_processes import Child, children, run_feed, run_relays
from denizen.bench.processes import processor_seconds
from denizen.bench.report import Figure, Report, percentile, publish, ratio
from denizen.bus.hints import Hinter
from denizen.bus.server import NatsServer
from denizen.events.records import NO_STREAM, Append, Result
from denizen.events.store import ShardStore, connect
from denizen.events.stores import ShardStores
from denizen.service.router import Router
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, mint_user_id
from denizen.testing.bus import throwaway_nats
from denizen.testing.gateway import provision_all
from denizen.testing.maps import FixedMap
from denizen.testing.postgres import Database, throwaway_server
from denizen.users.events import ProfileChanged, UserRegistered
from denizen.users.state import Status, User

PARTS = ("lag", "cost", "burden")
_SETTLE_S = 30.0


class Bench:
    """Shards, a bus and somebody who appends."""

    def __init__(self, databases: Sequence[Database], bucket_map: BucketMap, nats: NatsServer) -> None:
        self.map = bucket_map
        self.nats = nats
        self.shards = {
            shard: database.connect_args for shard, database in zip(bucket_map.shards, databases, strict=True)
        }
        self.appended = 0

    def relays(self) -> Child:
        """A process with a relay for each shard."""
        return Child(run_relays, self.shards, self.nats.settings())

    def feed(self) -> Child:
        """A process with a feed."""
        return Child(run_feed, self.shards, self.nats.settings(), self.map)

    async def append(self, seconds: float, *, rate: float | None, hints: bool, events: int = 1) -> dict[Any, float]:
        """Append for so long, so many events a second (None: as many as go); when each was acknowledged.

        `events` of each append belong to one stream.
        """
        acknowledged: dict[tuple[int, int], float] = {}
        async with AsyncExitStack() as stack:
            router = await self._router(stack, hints=hints)

            async def one() -> None:
                append = _append(events)
                outcome = await router.append(append)
                if outcome.result is not Result.DONE:
                    raise RuntimeError(f"an append was {outcome.result.name}")
                now = time.monotonic()
                for sequence in range(outcome.sequence - events + 1, outcome.sequence + 1):
                    acknowledged[append.bucket, sequence] = now

            await (_closed(one, seconds) if rate is None else _paced(one, seconds, rate / events))
        self.appended += len(acknowledged)
        return acknowledged

    async def _router(self, stack: AsyncExitStack, *, hints: bool) -> Router:
        hinter = Hinter(self.nats.settings())
        stores = ShardStores(
            self.shards,
            lambda shard, where: ShardStore(shard, where, appended=hinter.of(shard) if hints else None),
        )
        router = Router(FixedMap(self.map), stores, 7)
        await router.start()
        stack.push_async_callback(router.stop)
        if hints:
            hinter.start()
            stack.push_async_callback(hinter.stop)
            while not hinter.connected:  # noqa: ASYNC110 - only this benchmark ever waits for it
                await asyncio.sleep(0.01)
        return router

    async def warm(self, feed: Child) -> None:
        """Append a little until every relay publishes and the feed hears them."""
        before = 0
        while before == 0 or len(await self.relay_backends()) < len(self.shards):
            await self.append(0.5, rate=1_000, hints=True)
            before = (await self.settle(feed))["bus"]

    async def relay_backends(self) -> list[int]:
        """The processes of PostgreSQL that serve relays."""
        connection = await connect(next(iter(self.shards.values())))
        try:
            rows = await connection.fetch("select pid from pg_stat_activity where application_name = 'denizen relay'")
        finally:
            await connection.close()
        return [row["pid"] for row in rows]

    async def settle(self, feed: Child) -> dict[str, int]:
        """Wait until the feed has everything; how many events came from where."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            counts: dict[str, int] = await asyncio.to_thread(feed.ask, "counts")
            if sum(counts.values()) == self.appended:
                return counts
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.appended} events were appended, {counts} delivered")
            await asyncio.sleep(0.1)


def _append(events: int) -> Append:
    bucket = Bucket(random.randrange(BUCKETS))  # noqa: S311 - a load, not a secret
    email = f"{random.getrandbits(64):016x}@example.com"
    user_id = mint_user_id(bucket, time.time_ns() // 1_000_000)
    changes = tuple(ProfileChanged(display_name=f"Ann {number}", country="FR") for number in range(events - 1))
    return Append(
        bucket=bucket,
        stream=user_id,
        expected=NO_STREAM,
        command_id=user_id,
        events=(UserRegistered(email=email, display_name="Ann", attributes={"plan": "pro"}), *changes),
        actor="key:bench",
        state=User(Status.ACTIVE, email=email, display_name="Ann"),
    )


async def _paced(one: Any, seconds: float, rate: float) -> None:
    """Start `rate` a second, evenly, whatever becomes of them."""
    began = time.monotonic()
    started = 0
    tasks: set[asyncio.Task[None]] = set()
    while (elapsed := time.monotonic() - began) < seconds:
        while started < elapsed * rate:
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            started += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)


async def _closed(one: Any, seconds: float, clients: int = 256) -> None:
    """As many as `clients` at a time can do."""
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await one()

    await asyncio.gather(*(client() for _ in range(clients)))


async def lag(bench: Bench, seconds: float, rate: float) -> list[Figure]:
    """From acknowledgement to delivery, in a steady load."""
    with children(bench.relays(), bench.feed()) as (_, feed):
        await bench.warm(feed)
        await bench.append(1.0, rate=rate, hints=True)
        acknowledged = await bench.append(seconds, rate=rate, hints=True)
        await bench.settle(feed)
        came = await asyncio.to_thread(feed.ask, "came")
        late = sorted(await asyncio.to_thread(feed.ask, "late"))
    waits = sorted(max(0.0, came[position] - at) * 1000 for position, at in acknowledged.items())

    return [
        Figure(f"events a second, offered {rate:,.0f}", (len(waits) / seconds,), "/s"),
        Figure("lag, acknowledged to delivered, p50", (percentile(waits, 50),), "ms", "≤ 10", at_most=10),
        Figure("lag, p99", (percentile(waits, 99),), "ms", "≤ 50", at_most=50),
        Figure("lag, longest", (percentile(waits, 100),), "ms"),
        Figure("how late the machine wakes an idle timer, p50", (percentile(late, 50),), "ms"),
        Figure("the same, p99", (percentile(late, 99),), "ms"),
    ]


async def cost(bench: Bench, seconds: float, rate: float, events: int) -> list[Figure]:
    """Processor time of relays, feed and NATS at a rate."""
    with children(bench.relays(), bench.feed()) as (relays, feed):
        await bench.warm(feed)
        sources = await bench.settle(feed)
        pids = {"relays": [relays.pid], "feed": [feed.pid], "NATS": [bench.nats.pid or 0]}
        pids["PostgreSQL for relays"] = await bench.relay_backends()
        before = {name: processor_seconds(*of) for name, of in pids.items()}
        count = len(await bench.append(seconds, rate=rate, hints=True, events=events))
        used = {name: processor_seconds(*of) - before[name] for name, of in pids.items()}
        after = await bench.settle(feed)
    share = (after["bus"] - sources["bus"]) / max(1, sum(after.values()) - sum(sources.values()))
    return [
        Figure(f"events a second, offered {rate:,.0f}", (count / seconds,), "/s"),
        *(Figure(f"{name}, share of one core", (used[name] / seconds * 100,), "%") for name in used),
        *(Figure(f"{name}, each event", (used[name] / count * 1e6,), "µs") for name in used),
        Figure("delivered by the bus, not from PostgreSQL", (share * 100,), "%"),
    ]


async def burden(bench: Bench, seconds: float, rounds: int) -> list[Figure]:
    """How much of the appends' rate is left with hints alone, and with relays and a feed."""
    rates: dict[str, list[float]] = {"alone": [], "hints": [], "all": []}
    for _ in range(rounds):
        rates["alone"].append(len(await bench.append(seconds, rate=None, hints=False)) / seconds)
        rates["hints"].append(len(await bench.append(seconds, rate=None, hints=True)) / seconds)
        with children(bench.relays(), bench.feed()) as (_, feed):
            await bench.warm(feed)
            rates["all"].append(len(await bench.append(seconds, rate=None, hints=True)) / seconds)
            await bench.settle(feed)
    return [
        Figure("appends a second, alone", tuple(rates["alone"]), "/s"),
        ratio("appends with hints", rates["hints"], rates["alone"]),
        ratio("appends with relays and a feed", rates["all"], rates["alone"], 0.9),
    ]


def run(*, shards: int = 4, seconds: float = 10.0, rounds: int = 3, parts: Sequence[str] = PARTS) -> Report:
    """Measure these parts, `seconds` each, and write bench-results/bus.json; `shards` databases on one server."""
    with throwaway_server(settings={"max_connections": "100", "shared_buffers": "512MB"}) as server:
        figures: list[Figure] = []
        for part in parts:
            with throwaway_nats() as nats:
                databases = [server.create_database() for _ in range(shards)]
                figures += uvloop.run(_run(part, databases, nats, seconds, rounds))
                for database in databases:
                    server.drop_database(database)
    return publish("bus", figures, {"shards": shards, "seconds": seconds})


async def _run(part: str, databases: Sequence[Database], nats: NatsServer, seconds: float, rounds: int) -> list[Figure]:
    bench = Bench(databases, await provision_all(databases), nats)
    if part == "lag":
        return await lag(bench, seconds, 2_000)
    if part == "cost":
        return await cost(bench, seconds, 10_000, 4)
    return await burden(bench, seconds, rounds)
