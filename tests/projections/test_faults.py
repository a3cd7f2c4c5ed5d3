"""Faults of the read side that have no better place: what a replay must leave alone, and clocks."""

import asyncio
from typing import Any

from denizen.changes import Follower, Hub
from denizen.changes.cursors import Place
from denizen.projections import registry
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.replay.run import promote
from denizen.projections.replay.verify import verify
from denizen.sharding.ids import BUCKETS

from .test_replay import PROJECTIONS, Plant, plant

__all__ = ["plant"]  # a fixture

_WRITTEN = "select count(*), sum(t.xmin::text::bigint), sum((t.ctid::text::point)[0]) from denizen_read.{} t"


async def untouched(plant: Plant) -> list[Any]:
    """Of every row of the directory, the transaction that wrote it and where it lies; its checkpoints and versions."""
    rows = [tuple(await plant.connection.fetchrow(_WRITTEN.format(table.at(1)))) for table in DIRECTORY.tables]
    checkpoints = await registry.checkpoints(plant.connection, "directory", 1)
    versions = [each for each in await registry.versions(plant.connection) if each.projection == "directory"]
    return [*rows, checkpoints, versions]


async def test_rebuilding_one_read_model_touches_no_other(plant: Plant) -> None:
    await plant.sign_up(100)
    await plant.until_level()
    before = await untouched(plant)
    version = await plant.rebuilt("plans")
    await plant.until_level()
    await promote(plant.connection, PROJECTIONS["plans"], version)
    assert await untouched(plant) == before


async def test_a_replay_gives_no_consumer_an_event_again(plant: Plant) -> None:
    """What acts on events, such as sending mails, hangs on the feed or the bus; a replay is on neither."""
    hub = Hub(None, plant.gateway.router, lambda event: event.position.token().encode(), 7)
    await plant.sign_up(20)
    async with Follower(hub, Place(0, BUCKETS - 1, [0] * BUCKETS)) as follower:
        acted: list[bytes] = []
        while len(acted) < 20 or follower.lag_events:
            acted += await follower.next(100, 1.0)
        before = len(acted)
        version = await plant.rebuilt("plans")
        await plant.until_level()
        await promote(plant.connection, PROJECTIONS["plans"], version)
        assert await follower.next(100, 1.0) == []
        await plant.sign_up(1)
        async with asyncio.timeout(10):
            while len(acted) == before:
                acted += await follower.next(100, 1.0)
    await hub.stop()
    assert len(set(acted)) == len(acted)


async def test_a_clock_set_back_ten_seconds_changes_no_order_and_loses_nothing(plant: Plant) -> None:
    users = await plant.sign_up(20)
    await plant.until_level()
    await plant.projector.aclose()  # nobody reads the events below before their times are set back
    await plant.sign_up(20)
    for store in plant.gateway.router.stores.values():  # what the shards' clocks would have said
        await store.read(
            lambda connection: connection.execute(
                "update denizen.events set recorded_at = recorded_at - interval '10 s' where stream <> all ($1)", users
            )
        )
    await plant.run_projector(PROJECTIONS)
    await plant.until_level()
    assert await plant.connection.fetchval("select count(*) from denizen_read.directory") == 40
    for name in PROJECTIONS:
        assert (await verify(plant.connection, PROJECTIONS[name], 1, await plant.rebuilt(name))).equal
    told = "select count(*) from denizen_read.progress where as_of > clock_timestamp() + interval '1 s'"
    assert await plant.connection.fetchval(told) == 0
