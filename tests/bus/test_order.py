"""The order of events: what is live is what is stored, however transactions overlap."""

import asyncio
import random
from collections.abc import Iterator

import asyncpg
import pytest

from denizen.bus.server import NatsServer
from denizen.events.appending import Ciphers, Write, columns_of
from denizen.events.reading import read_bucket
from denizen.events.store import connect
from denizen.sharding.ids import Bucket
from denizen.testing.bus import Collected, collect
from denizen.testing.postgres import ThrowawayServer, throwaway_server

from .plane import EPOCH, Plane, registration, running_plane
from .waiting import until

APPEND = (
    "select outcome from denizen.append("
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
)
WRITERS = 64


@pytest.fixture(scope="module")
def roomy_server() -> Iterator[ThrowawayServer]:
    """A server that takes as many connections as there are writers."""
    with throwaway_server(settings={"max_connections": "100"}) as server:
        yield server


async def write(connection: asyncpg.Connection, bucket: int, *, events: int = 1) -> None:
    """Append in the transaction that is open on this connection."""
    writes = [Write(registration(bucket), EPOCH) for _ in range(events)]
    rows = await connection.fetch(APPEND, *columns_of(writes, Ciphers(2)))
    assert {row["outcome"] for row in rows} == {"done"}


async def test_a_late_commit_is_never_skipped(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, plane.connection() as slow:
        await until(lambda: feed.listening)
        await plane.append(2, buckets=[1, 2])
        got = await collect(feed, 2)
        transaction = slow.transaction()
        await transaction.start()
        await write(slow, 1)  # takes sequence 2 of bucket 1, and holds the bucket
        behind = asyncio.create_task(plane.append(1, buckets=[1]))
        await plane.append(20, buckets=[2])  # others go by
        await collect(feed, 22, into=got)
        assert not (await feed.next_batch(10, 0.7)).events
        await transaction.commit()
        await behind
        await collect(feed, 24, into=got)
    assert [event.position.sequence for event in got.events[1]] == [1, 2, 3]


async def test_an_append_that_was_rolled_back_leaves_nothing(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, plane.connection() as connection:
        await until(lambda: feed.listening)
        transaction = connection.transaction()
        await transaction.start()
        await write(connection, 1, events=5)
        await transaction.rollback()
        await plane.append(3, buckets=[1])
        got = await collect(feed, 3)
        assert not (await feed.next_batch(10, 0.7)).events
    stored = {event.stream for event in got.events[1]}
    async with plane.connection() as connection:
        assert stored == {event.stream for event in await read_bucket(connection, Bucket(1), after=0, limit=10)}


async def test_events_of_one_append_come_in_their_order(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, plane.connection() as connection:
        await until(lambda: feed.listening)
        await write(connection, 3, events=200)
        await collect(feed, 200)


async def test_live_events_of_64_writers_equal_the_stored_order(
    roomy_server: ThrowawayServer, nats_server: NatsServer
) -> None:
    chance = random.Random(20_261_122)
    database = roomy_server.create_database()
    buckets = range(5)

    async def writer(number: int) -> int:
        await asyncio.sleep(number * 0.005)
        connection = await connect(database.connect_args)
        committed = 0
        try:
            for _ in range(12):
                events = chance.randint(1, 3)
                transaction = connection.transaction()
                await transaction.start()
                await write(connection, chance.choice(buckets), events=events)
                await asyncio.sleep(chance.random() * 0.004)
                if chance.random() < 0.3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    committed += events
        finally:
            await connection.close()
        return committed

    async with running_plane([database], nats_server) as plane:
        plane.start_relays()
        async with plane.feed() as feed:
            await until(lambda: feed.listening)
            got = Collected()
            writing = asyncio.gather(*(writer(number) for number in range(WRITERS)))
            while not writing.done():
                got.add((await feed.next_batch(100, 0.05)).events)
            await collect(feed, sum(await writing), into=got)
            assert not (await feed.next_batch(10, 0.7)).events
            live = feed.counts()["bus"]
        async with plane.connection() as connection:
            for bucket in buckets:
                assert got.events[bucket] == await read_bucket(connection, Bucket(bucket), after=0, limit=10_000)
    assert live > got.count * 0.8
