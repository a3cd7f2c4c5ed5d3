"""The feed of changes under faults: every change once, in the order of its bucket, whatever dies.

A consumer here is what a consumer outside is: it keeps its last cursor, and begins anew with it after any trouble.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from denizen import limits
from denizen.bus.server import NatsServer
from denizen.changes import Follower, Hub
from denizen.changes.cursors import Place, decode, encode
from denizen.errors import DenizenError, Invalid, Unavailable
from denizen.events.records import RecordedEvent
from denizen.sharding.ids import BUCKETS, Bucket
from denizen.testing.postgres import Database, ThrowawayServer

from .plane import Plane, running_plane
from .waiting import until

KEY = 7


def shown(event: RecordedEvent) -> bytes:
    return event.position.token().encode()


def hub_over(plane: Plane, *, bus: bool = True) -> Hub:
    return Hub(plane.bus if bus else None, plane.router, shown, KEY)


class Consumer:
    """Follows one hub after the other, and keeps nothing but its cursor and what it got."""

    def __init__(self, limit: int = 100) -> None:
        self.cursor = encode(Place(0, BUCKETS - 1, [0] * BUCKETS), KEY)
        self.got: list[str] = []
        self._limit = limit

    async def follow(self, hub: Hub, changes: int, seconds: float = 60.0) -> None:
        """Follow this hub until it has so many; what a hub says when it ends is the end of it, not of the consumer."""
        async with asyncio.timeout(seconds):
            while len(self.got) < changes:
                try:
                    async with Follower(hub, decode(self.cursor, KEY)) as follower:
                        while len(self.got) < changes:
                            self.got += [each.decode() for each in await follower.next(self._limit, 1.0)]
                            self.cursor = encode(follower.place, KEY)
                except DenizenError:
                    await asyncio.sleep(0.05)

    def assert_once_in_order(self, changes: int) -> None:
        """Each of so many changes once, without a hole, in the order of its bucket."""
        assert len(self.got) == changes
        last: dict[str, int] = {}
        for bucket, _, sequence in (token.partition("-") for token in self.got):
            assert int(sequence, 16) == last.get(bucket, 0) + 1
            last[bucket] = int(sequence, 16)


@pytest.fixture
async def hub(plane: Plane) -> AsyncIterator[Hub]:
    hub = hub_over(plane)
    yield hub
    await hub.stop()


async def writing(plane: Plane, stop: asyncio.Event) -> int:
    written = 0
    while not stop.is_set():
        await plane.append(40, buckets=range(0, BUCKETS, 101))
        written += 40
        await asyncio.sleep(0.02)
    return written


async def test_changes_come_once_while_nats_is_killed_and_wiped_and_relays_and_gateways_end(plane: Plane) -> None:
    plane.start_relays()
    stop = asyncio.Event()
    load = asyncio.create_task(writing(plane, stop))
    consumer, hub = Consumer(), hub_over(plane)
    await consumer.follow(hub, 200)
    plane.nats.kill()
    await consumer.follow(hub, 500)
    plane.nats.wipe()
    plane.nats.start()
    plane.nats.wait_ready()
    await consumer.follow(hub, 900)
    await plane.stop_relays()
    await consumer.follow(hub, 1_200)
    await hub.stop()  # the gateway ends, and the next one knows nothing of its consumers
    hub = hub_over(plane)
    plane.start_relays()
    await consumer.follow(hub, 1_600)
    stop.set()
    written = await load
    await consumer.follow(hub, written)
    await hub.stop()
    consumer.assert_once_in_order(written)


async def test_a_consumer_far_behind_catches_up_beside_one_that_is_near(
    plane: Plane, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "changes_kept_max", 50)  # so that what is kept is soon too new for the slow one
    plane.start_relays()
    await plane.append(400)
    stop = asyncio.Event()
    load = asyncio.create_task(writing(plane, stop))
    slow, quick = Consumer(limit=7), Consumer()
    following = asyncio.create_task(slow.follow(hub, 200))
    await quick.follow(hub, 700)
    await following
    stop.set()
    written = 400 + await load
    await asyncio.gather(slow.follow(hub, written), quick.follow(hub, written))
    slow.assert_once_in_order(written)
    quick.assert_once_in_order(written)


async def test_what_is_kept_is_bounded_and_ends_when_nobody_follows(
    plane: Plane, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "changes_kept_max", 20)
    monkeypatch.setattr(limits, "changes_idle_s", 0.2)
    consumer = Consumer()
    async with Follower(hub, decode(consumer.cursor, KEY)):
        await plane.append(300)
        await until(lambda: hub.end >= 300)
        assert hub.end - hub.start <= 40
    await until(lambda: "feed of changes" not in {task.get_name() for task in asyncio.all_tasks()})
    await consumer.follow(hub, 300)
    consumer.assert_once_in_order(300)


async def test_a_shard_that_is_away_holds_up_nobody_elses_changes(
    postgres_server: ThrowawayServer, database: Database, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = postgres_server.create_database()
    async with running_plane([database, other], nats_server) as plane:
        await plane.append(200)
        first, second = plane.router.map.shards
        here = [bucket for bucket in range(BUCKETS) if plane.router.map.shard_of(Bucket(bucket)) == second]
        hub, consumer, reading = hub_over(plane), Consumer(), plane.router.read
        await hub.join()

        async def cut(bucket: Bucket, ask: Any) -> Any:
            if plane.router.map.shard_of(bucket) == first:
                raise Unavailable("it is away")
            return await reading(bucket, ask)

        monkeypatch.setattr(plane.router, "read", cut)
        await consumer.follow(hub, sum(hub.taken[bucket] for bucket in here))
        assert {int(token.split("-")[0], 16) for token in consumer.got} <= set(here)
        monkeypatch.setattr(plane.router, "read", reading)
        await consumer.follow(hub, 200)
        await hub.stop()
    postgres_server.drop_database(other)
    consumer.assert_once_in_order(200)


async def test_without_any_bus_changes_come_all_the_same(plane: Plane) -> None:
    hub, consumer = hub_over(plane, bus=False), Consumer()
    await plane.append(100)
    await consumer.follow(hub, 100)
    await plane.append(100)
    await consumer.follow(hub, 200)
    await hub.stop()
    consumer.assert_once_in_order(200)


def test_a_cursor_leads_back_to_its_place_and_to_no_other() -> None:
    for sequences in ([0] * BUCKETS, list(range(BUCKETS)), [2**40 + bucket**3 for bucket in range(BUCKETS)]):
        cursor = encode(Place(0, BUCKETS - 1, sequences), KEY)
        assert decode(cursor, KEY).sequences == sequences
        assert len(cursor) < limits.uri_chars_max
        for wrong in (
            cursor[:-1],
            cursor[1:],
            cursor[:40] + ("A" if cursor[40] != "A" else "B") + cursor[41:],
            "",
            "é",
        ):
            with pytest.raises(Invalid):
                decode(wrong, KEY)
        with pytest.raises(Invalid):
            decode(cursor, KEY + 1)  # another deployment's
    part = Place(100, 163, [5] * 64)
    assert decode(encode(part, KEY), KEY) == part
