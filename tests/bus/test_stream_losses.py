"""What the stream can lose, and how it comes back: a message in the middle, the tail, everything."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from nats.js.errors import NotFoundError

from denizen import limits
from denizen.bus.connection import Bus
from denizen.bus.settings import EVENTS_STREAM
from denizen.testing.bus import collect

from .plane import ALL, Plane
from .stream import held, operator, publish_in_pieces, relay_level, sequences
from .waiting import until


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


async def test_a_deleted_message_is_not_taken_for_the_one_that_replaces_it(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same events in the same batch, within the duplicate window: JetStream must store them again."""
    monkeypatch.setattr(limits, "bus_heads_interval_s", 60.0)  # the place to resume from is before all events
    plane.start_relays()
    await until(lambda: relay_level(plane))
    for _ in range(3):
        plane_published = sum(relay.published for relay in plane.relays)
        await plane.append(4, buckets=[1])
        await until(lambda before=plane_published: sum(relay.published for relay in plane.relays) == before + 4)
    await plane.stop_relays()
    async with operator(plane) as bus:
        await bus.stream.delete_msg(EVENTS_STREAM, (await sequences(bus))[-1])
        assert (1, 12) not in await held(bus)
        plane.start_relays()

        async def complete() -> bool:
            return await held(bus) == [(1, sequence) for sequence in range(1, 13)]

        await until(complete)


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
