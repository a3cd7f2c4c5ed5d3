"""What the stream can lose, and how it comes back: messages deleted, NATS killed and wiped, relays late or doubled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from nats.js.errors import NotFoundError

from denizen import limits
from denizen.bus.connection import Bus, connected
from denizen.bus.messages import decode_events
from denizen.bus.server import NatsServer
from denizen.bus.settings import EVENTS_STREAM, events_subject
from denizen.testing.bus import Collected, collect
from denizen.testing.postgres import Database

from .plane import ALL, Plane
from .waiting import until

SHARD = "s1"


@asynccontextmanager
async def operator(plane: Plane) -> AsyncIterator[Bus]:
    """Somebody with the bus's password."""
    async with connected(plane.bus, "operator") as bus:
        yield bus


async def sequences(bus: Bus) -> list[int]:
    """The stream's sequences that hold a message."""
    info = await bus.stream.stream_info(EVENTS_STREAM)
    found, at = [], info.state.first_seq
    while at <= info.state.last_seq:
        try:
            message = await bus.stream.get_msg(EVENTS_STREAM, at, subject=events_subject(SHARD), next=True)
        except NotFoundError:
            break
        found.append(message.seq)
        at = message.seq + 1
    return found


async def held(bus: Bus) -> list[tuple[int, int]]:
    """The positions in the stream, in order."""
    found = []
    for sequence in await sequences(bus):
        message = decode_events((await bus.stream.get_msg(EVENTS_STREAM, sequence)).data)
        found += [(event.bucket, event.sequence) for event in message.events]
    return found


async def publish_in_pieces(plane: Plane, pieces: int, events: int) -> None:
    """Several messages: each piece is published before the next is written."""
    for _ in range(pieces):
        goal = sum(relay.published for relay in plane.relays) + events
        await plane.append(events, buckets=[1, 2, 3])
        await until(lambda goal=goal: sum(relay.published for relay in plane.relays) >= goal)


async def delete_middle(bus: Bus) -> None:
    found = await sequences(bus)
    await bus.stream.delete_msg(EVENTS_STREAM, found[len(found) // 2])


async def delete_tail(bus: Bus) -> None:
    for sequence in (await sequences(bus))[-2:]:
        await bus.stream.delete_msg(EVENTS_STREAM, sequence)


async def purge(bus: Bus) -> None:
    await bus.stream.purge_stream(EVENTS_STREAM)


async def delete_stream(bus: Bus) -> None:
    await bus.stream.delete_stream(EVENTS_STREAM)


LOSSES = pytest.mark.parametrize("lose", [delete_middle, delete_tail, purge, delete_stream])


@LOSSES
async def test_messages_lost_before_a_feed_read_them_are_healed(
    plane: Plane, lose: Callable[[Bus], Awaitable[None]]
) -> None:
    plane.start_relays()
    async with plane.feed() as first:
        await until(lambda: first.listening)
        await publish_in_pieces(plane, 3, 12)
        got = await collect(first, 36)
    # The consumer is away, as one that restarts; meanwhile the stream loses what it has not seen.
    await publish_in_pieces(plane, 4, 12)
    async with operator(plane) as bus:
        await lose(bus)
    starts = ALL | {bucket: events[-1].position.sequence for bucket, events in got.events.items()}
    async with plane.feed(starts) as feed:
        await collect(feed, 84, into=got)
        await until(lambda: feed.listening)
        await plane.append(12, buckets=[1, 2, 3])
        await collect(feed, 96, into=got)


@LOSSES
async def test_relay_and_feed_go_on_through_a_loss(plane: Plane, lose: Callable[[Bus], Awaitable[None]]) -> None:
    plane.start_relays()
    async with plane.feed() as feed, operator(plane) as bus:
        await until(lambda: feed.listening)
        await publish_in_pieces(plane, 4, 12)
        await lose(bus)
        await plane.append(12, buckets=[1, 2, 3])
        got = await collect(feed, 60)
        await until(lambda: relay_level(plane))
        await until(lambda: feed.listening)
        before = feed.counts()["bus"]
        await plane.append(12, buckets=[1, 2, 3])
        await collect(feed, 72, into=got)
        assert feed.counts()["bus"] > before


def relay_level(plane: Plane) -> bool:
    return all(relay.level for relay in plane.relays)


async def test_a_lost_tail_is_published_again(plane: Plane) -> None:
    plane.start_relays()
    await until(lambda: relay_level(plane))
    await publish_in_pieces(plane, 4, 12)
    await asyncio.sleep(limits.bus_heads_interval_s)
    async with operator(plane) as bus:
        everything = set(await held(bus))
        await delete_tail(bus)
        assert set(await held(bus)) < everything
        await plane.append(1, buckets=[1])  # the relay's next publication finds that the stream is not as it thought

        async def complete() -> bool:
            return set(await held(bus)) >= everything | {(1, 17)}

        await until(complete)


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


async def test_a_wiped_stream_begins_at_a_recent_point(plane: Plane) -> None:
    plane.start_relays()
    await publish_in_pieces(plane, 4, 60)
    plane.nats.kill()
    plane.nats.wipe()
    plane.nats.start()
    plane.nats.wait_ready()
    await plane.append(3, buckets=[1, 2, 3])
    # The relay looks before or after the append; from what it saw it goes back so far, and no further.
    recent = range(82 - limits.bus_restart_events_max, 82)
    wanted = {(bucket, sequence) for bucket in (1, 2, 3) for sequence in recent}
    found: set[tuple[int, int]] = set()

    async def complete() -> bool:
        async with operator(plane) as bus:
            with suppress(NotFoundError):  # the stream is not there yet
                found.update(await held(bus))
        return found >= wanted

    await until(complete)
    assert min(sequence for _, sequence in found) >= recent[0] - 1


async def test_of_two_relays_of_a_shard_one_publishes_and_the_other_takes_over(plane: Plane) -> None:
    plane.start_relays()
    await until(lambda: any(relay.leading for relay in plane.relays))
    plane.start_relays()
    await publish_in_pieces(plane, 3, 12)
    leaders = [relay for relay in plane.relays if relay.leading]
    assert len(leaders) == 1
    assert [relay.published for relay in plane.relays if relay is not leaders[0]] == [0]
    plane.relays.pop(leaders[0]).cancel()
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


async def test_messages_that_nobody_can_read_are_passed_over(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed, operator(plane) as bus:
        await until(lambda: feed.listening)
        for payload in (b"", b"\xc1", b"\x81\xa1v\x02", b"\x81\xa1v\x01"):
            await bus.client.publish(events_subject(SHARD), payload)
            await bus.client.publish("denizen.heads.s1", payload)
            await bus.client.publish("denizen.hint.s1", payload)
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
