"""The feed with every server at its service."""

import asyncio

import pytest

from denizen.events.codec import UnknownEvent
from denizen.testing.bus import Collected, collect
from denizen.testing.postgres import ThrowawayServer

from .plane import ALL, Plane, running_plane
from .waiting import until


async def test_events_from_before_the_feed_and_after_come_once_in_order(plane: Plane) -> None:
    await plane.append(300)
    plane.start_relays()
    async with plane.feed() as feed:
        got = await collect(feed, 300)
        await until(lambda: feed.listening)
        await plane.append(200)
        got = await collect(feed, 500, into=got)
        assert not (await feed.next_batch(10, 0.3)).events
    assert got.count == 500


async def test_what_comes_is_what_was_stored(plane: Plane) -> None:
    from denizen.events.reading import read_bucket
    from denizen.sharding.ids import Bucket

    plane.start_relays()
    async with plane.feed() as feed:
        await until(lambda: feed.listening)
        await plane.append(20, buckets=[5])
        got = await collect(feed, 20)
    async with plane.connection() as connection:
        assert got.events[5] == await read_bucket(connection, Bucket(5), after=0, limit=100)


async def test_events_come_live_without_reading_postgres(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed:
        await until(lambda: feed.listening)
        await plane.append(1)
        got = await collect(feed, 1)
        await until(lambda: all(relay.level for relay in plane.relays))
        before = feed.counts()
        await plane.append(500)
        await collect(feed, 501, into=got)
        after = feed.counts()
    assert after["bus"] - before["bus"] == 500


async def test_a_feed_starts_after_its_checkpoints_and_follows_only_its_buckets(plane: Plane) -> None:
    from denizen.sharding.ids import Bucket

    plane.start_relays()
    await plane.append(30, buckets=[1, 2, 3])
    async with plane.feed({Bucket(1): 4, Bucket(2): 10}) as feed:
        got = Collected()
        async with asyncio.timeout(10):
            while got.count < 6:
                got.add((await feed.next_batch(2, 1.0)).events, first=5)
        await until(lambda: feed.listening)
        await plane.append(9, buckets=[1, 2, 3])
        batches = [await feed.next_batch(100, 1.0)]
        async with asyncio.timeout(10):
            while sum(len(batch.events) for batch in batches) < 6:
                batches.append(await feed.next_batch(100, 1.0))
    assert [event.position.sequence for event in got.events[1]] == [5, 6, 7, 8, 9, 10]
    later = sorted(e.position for batch in batches for e in batch.events)
    assert [(p.bucket, p.sequence) for p in later] == [(b, s) for b in (1, 2) for s in (11, 12, 13)]
    assert dict(batches[-1].heads) == {1: 13, 2: 13}


async def test_a_feed_can_be_sent_back_and_forth(plane: Plane) -> None:
    from denizen.sharding.ids import Bucket

    plane.start_relays()
    await plane.append(10, buckets=[7])
    async with plane.feed({Bucket(7): 0}) as feed:
        await collect(feed, 10)
        feed.seek({Bucket(7): 4})
        again = await feed.next_batch(100, 5.0)
        assert [event.position.sequence for event in again.events] == [5, 6, 7, 8, 9, 10]
        feed.seek({Bucket(7): 11})
        await plane.append(2, buckets=[7])
        skipped = await feed.next_batch(100, 5.0)
        assert [event.position.sequence for event in skipped.events] == [12]


async def test_an_event_of_a_newer_program_stops_the_feed_after_all_before_it(plane: Plane) -> None:
    from denizen.sharding.ids import Bucket

    await plane.append(3, buckets=[9])
    async with plane.connection() as connection:
        await connection.execute("update denizen.events set type = 77 where bucket = 9 and sequence = 2")
    async with plane.feed({Bucket(9): 0}) as feed:
        assert len((await feed.next_batch(100, 5.0)).events) == 1
        for _ in range(2):
            with pytest.raises(UnknownEvent, match="77"):
                await feed.next_batch(100, 5.0)
        feed.seek({Bucket(9): 2})
        assert [e.position.sequence for e in (await feed.next_batch(100, 5.0)).events] == [3]


async def test_a_slow_consumer_bounds_what_the_feed_holds(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    from denizen import limits

    monkeypatch.setattr(limits, "feed_ready_events_max", 200)
    monkeypatch.setattr(limits, "feed_heal_events_max", 100)
    monkeypatch.setattr(limits, "bus_batch_events_max", 100)
    plane.start_relays()
    async with plane.feed() as feed:
        await until(lambda: feed.listening)
        for _ in range(10):
            await plane.append(300)
        most = 0
        got = Collected()
        async with asyncio.timeout(20):
            while got.count < 3_000:
                most = max(most, feed.waiting)
                got.add((await feed.next_batch(50, 1.0)).events)
    assert most <= 200 + 100 + 100  # the bound, a message and a read that were under way


async def test_several_shards_are_one_feed(postgres_server: ThrowawayServer, plane: Plane) -> None:
    databases = [postgres_server.create_database() for _ in range(3)]
    async with running_plane(databases, plane.nats) as wide:
        wide.start_relays()
        async with wide.feed(ALL) as feed:
            await until(lambda: feed.listening)
            await wide.append(900)
            got = await collect(feed, 900)
    assert len(got.events) == len(range(0, 4096, 41))
    for database in databases:
        postgres_server.drop_database(database)


async def test_without_any_bus_the_feed_polls(plane: Plane) -> None:
    async with plane.feed(bus=False) as feed:
        await plane.append(100)
        got = await collect(feed, 100)
        await plane.append(100)
        await collect(feed, 200, seconds=5, into=got)
