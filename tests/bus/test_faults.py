"""Relays late, doubled and without their lock; consumers taken away; NATS killed and wiped under load."""

import asyncio

import pytest

from denizen import limits
from denizen.bus.server import NatsServer
from denizen.bus.settings import EVENTS_STREAM, events_subject
from denizen.bus.tasks import end_tasks
from denizen.testing.bus import Collected, collect
from denizen.testing.postgres import Database

from .plane import Plane
from .stream import SHARD, held, operator, publish_in_pieces, sequences
from .waiting import until


async def test_a_relay_that_begins_again_publishes_nothing_twice(plane: Plane) -> None:
    plane.start_relays()
    await publish_in_pieces(plane, 4, 12)
    await plane.stop_relays()
    await plane.append(12, buckets=[1, 2, 3])
    plane.start_relays()
    await publish_in_pieces(plane, 1, 12)
    async with operator(plane) as bus:
        positions = await held(bus)
    assert len(positions) == len(set(positions)) == 72
    for bucket in (1, 2, 3):
        assert [sequence for found, sequence in positions if found == bucket] == list(range(1, 25))


async def test_a_relay_that_was_down_longer_than_the_duplicate_window_leaves_no_hole(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "bus_duplicate_window_s", 0.2)
    plane.start_relays()
    await publish_in_pieces(plane, 2, 12)
    await plane.stop_relays()
    await plane.append(120, buckets=[1, 2, 3])
    await asyncio.sleep(0.3)  # longer than the window: that is the fault itself
    plane.start_relays()
    await until(lambda: sum(relay.published for relay in plane.relays) >= 120)
    async with operator(plane) as bus:
        positions = await held(bus)
        window = (await bus.stream.stream_info(EVENTS_STREAM)).config.duplicate_window
    assert window == pytest.approx(0.2)
    assert len(positions) == len(set(positions)) == 144
    async with plane.feed() as feed:
        await collect(feed, 144)


async def test_of_two_relays_of_a_shard_one_publishes_and_the_other_takes_over(plane: Plane) -> None:
    plane.start_relays()
    await until(lambda: any(relay.leading for relay in plane.relays))
    plane.start_relays()
    await publish_in_pieces(plane, 3, 12)
    leaders = [relay for relay in plane.relays if relay.leading]
    assert len(leaders) == 1
    assert [relay.published for relay in plane.relays if relay is not leaders[0]] == [0]
    await end_tasks([plane.relays.pop(leaders[0])])
    await plane.append(12, buckets=[1, 2, 3])
    await until(lambda: sum(relay.published for relay in plane.relays) == 12)
    async with operator(plane) as bus:
        positions = await held(bus)
    assert len(positions) == len(set(positions)) == 48


async def test_a_relay_without_its_lock_is_refused_by_the_stream(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two relays that both believe to be the one: what they publish interleaves, and never makes a hole or a double."""
    from denizen.bus import source

    async def granted(_: object) -> bool:
        return True

    monkeypatch.setattr(source, "_try_lock", granted)
    plane.start_relays()
    plane.start_relays()
    async with plane.feed() as feed:
        for _ in range(20):
            await plane.append(12, buckets=[1, 2, 3])
        await collect(feed, 240)

    async def complete() -> bool:
        async with operator(plane) as bus:
            positions = await held(bus)
        return all(
            sorted({sequence for found, sequence in positions if found == bucket}) == list(range(1, 81))
            for bucket in (1, 2, 3)
        )

    await until(complete)


async def test_a_message_that_comes_again_changes_nothing(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, operator(plane) as bus:
        await until(lambda: feed.listening)
        await publish_in_pieces(plane, 3, 12)
        got = await collect(feed, 36)
        for sequence in await sequences(bus):
            message = await bus.stream.get_msg(EVENTS_STREAM, sequence)
            await bus.client.publish(message.subject, message.data)
        await plane.append(12, buckets=[1, 2, 3])
        await collect(feed, 48, into=got)
        assert not (await feed.next_batch(10, 0.5)).events


async def test_a_consumer_that_is_taken_away_is_made_again(plane: Plane) -> None:
    """As when JetStream forgets it, or its leader changes."""
    plane.start_relays()
    async with plane.feed() as feed, operator(plane) as bus:
        await until(lambda: feed.listening)
        await publish_in_pieces(plane, 2, 12)
        got = await collect(feed, 24)
        for consumer in await bus.stream.consumers_info(EVENTS_STREAM):
            await bus.stream.delete_consumer(EVENTS_STREAM, consumer.name)
        await publish_in_pieces(plane, 2, 12)
        await collect(feed, 48, into=got)
        await until(lambda: feed.listening)
        before = feed.counts()["bus"]
        await publish_in_pieces(plane, 1, 12)
        await collect(feed, 60, into=got)
        assert feed.counts()["bus"] > before


async def test_messages_that_nobody_can_read_are_passed_over(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, operator(plane) as bus:
        await until(lambda: feed.listening)
        for payload in (b"", b"\xc1", b"\x81\xa1v\x02", b"\x81\xa1v\x01"):
            await bus.client.publish(events_subject(SHARD), payload)
            await bus.client.publish("denizen.heads.s1", payload)
            await bus.client.publish("denizen.hint", payload)
        await plane.append(12, buckets=[1, 2, 3])
        await collect(feed, 12)


async def test_nats_killed_and_wiped_under_load_costs_lag_only(plane: Plane, database: Database) -> None:
    plane.start_relays()
    got = Collected()
    async with plane.feed() as feed:
        await until(lambda: feed.listening)
        stop = asyncio.Event()

        async def load() -> int:
            written = 0
            while not stop.is_set():
                await plane.append(40)
                written += 40
                await asyncio.sleep(0.02)
            return written

        loading = asyncio.create_task(load())
        await collect(feed, 400, into=got)
        for wipe in (False, True):
            plane.nats.kill()
            await until(lambda: not feed.listening)
            await collect(feed, got.count + 400, into=got)  # on without any bus
            if wipe:
                plane.nats.wipe()
            restart(plane.nats)
            await until(lambda: feed.listening, seconds=10)
            before = feed.counts()["bus"]
            await collect(feed, got.count + 400, into=got)
            while feed.counts()["bus"] == before:
                await collect(feed, got.count + 40, into=got)
        stop.set()
        written = await loading
        await collect(feed, written, seconds=10, into=got)
        assert not (await feed.next_batch(10, 1.0)).events
    assert got.count == written


def restart(server: NatsServer) -> None:
    server.start()
    server.wait_ready()
