"""The projector: many projections, one feed; pauses, unknown events, parked streams, two projectors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from prometheus_client import REGISTRY

from denizen import limits
from denizen.bus.batches import Batch, Feed
from denizen.bus.rush import GivingWay, Processors, Rush
from denizen.bus.shards import Shards
from denizen.bus.tasks import end_tasks
from denizen.events.codec import UnknownEvent
from denizen.projections import registry
from denizen.projections.catalogue import by_name
from denizen.projections.control import Control
from denizen.projections.database import connect_writer
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.metrics import Lag
from denizen.projections.projector import Projector
from denizen.projections.registry import Version
from denizen.sharding.ids import Bucket
from denizen.testing.postgres import Database
from denizen.testing.projections import History, HistoryFeed
from denizen.users.events import AttributesChanged

from .plans import PLANS

PROJECTIONS = by_name([PLANS, DIRECTORY])
Opener = Callable[[Mapping[Bucket, int]], AbstractAsyncContextManager[Feed]]


@pytest.fixture
async def connection(read_database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect_writer(read_database.connect_args)
    yield connection
    await connection.close()


def opener(history: History) -> Opener:
    @asynccontextmanager
    async def open_feed(starts: Mapping[Bucket, int]) -> AsyncIterator[Feed]:
        yield HistoryFeed(history, starts)

    return open_feed


@asynccontextmanager
async def projecting(
    database: Database, history: History, open_feed: Opener | None = None, giving_way: GivingWay | None = None
) -> AsyncIterator[None]:
    projector = Projector(database.connect_args, PROJECTIONS, open_feed or opener(history), history.stream, giving_way)
    task = asyncio.create_task(projector.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(connection: asyncpg.Connection, query: str, expected: Any, *arguments: Any) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                found = await connection.fetchval(query, *arguments)
            except asyncpg.UndefinedTableError:
                found = None
            if found == expected:
                return
            await asyncio.sleep(0.03)


async def version_of(connection: asyncpg.Connection, name: str) -> Version:
    return next(version for version in await registry.versions(connection) if version.projection == name)


def sign_ups(history: History, users: int) -> None:
    for _ in range(users):
        history.register(bucket=7, email=f"u{len(history.events)}@example.com")


async def test_every_projection_follows_a_history_that_grows(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    sign_ups(history, 5)
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.directory", 5)
        sign_ups(history, 3)
        await until(connection, "select count(*) from denizen_read.directory", 8)
        await until(connection, "select count(*) from denizen_read.plans", 8)
        await until(
            connection, "select count(*) from denizen_read.progress where lag_events = 0 and now() - as_of < '9s'", 2
        )


async def test_in_a_rush_it_does_little_at_a_time_and_everything_in_the_end(
    read_database: Database, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "rush_batch_events_max", 4)
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 1 1 1 1 0 0 0 0 0\n")  # no processor is ever free
    rush = Rush(Processors(stat))

    async def hints() -> None:
        while True:
            rush.hear(limits.rush_group_writes)
            await asyncio.sleep(0.02)

    def rested() -> float:
        return REGISTRY.get_sample_value("denizen_rush_rested_seconds_total") or 0.0

    history, hinting = History(), asyncio.create_task(hints())
    try:
        async with projecting(read_database, history, giving_way=GivingWay(rush, 1.0)):
            await until(connection, "select count(*) from denizen_read.directory", 0)
            async with asyncio.timeout(10):
                while not rush.settled:
                    await asyncio.sleep(0.02)
            before = rested()
            await asyncio.sleep(2 * limits.projector_wait_s)  # what it asks its feed for next, it asks in the rush
            sign_ups(history, 100)
            await until(connection, "select count(*) from denizen_read.directory", 4)
            await until(connection, "select count(*) from denizen_read.directory", 100)
            assert 0.5 < rested() - before < 1.0 + 2 * limits.rush_rest_s
    finally:
        await end_tasks([hinting])


async def test_a_paused_projection_stands_still_while_others_go_on_and_catches_up(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    sign_ups(history, 2)
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.plans", 2)
        assert await registry.pause(connection, "plans", 1, "an operator says so")
        await asyncio.sleep(1.2)  # it looks every half second
        sign_ups(history, 2)
        await until(connection, "select count(*) from denizen_read.directory", 4)
        assert await connection.fetchval("select count(*) from denizen_read.plans") == 2
        await registry.resume(connection, "plans", 1)
        await until(connection, "select count(*) from denizen_read.plans", 4)
        assert (await version_of(connection, "plans")).reason is None


async def test_how_far_behind_a_projection_is_is_told_only_while_it_is_known(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    sign_ups(history, 2)
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.progress where lag_events = 0", 2)
    control = Control(read_database.connect_args, cast(Shards, None))
    told = {version.projection: version for version in (await control.overview())[0]}
    assert [(each.lag_events, each.lag_ms_p99 is None) for each in told.values()] == [(0, False), (0, False)]
    assert await registry.pause(connection, "plans", 1, "an operator says so")
    await connection.execute("update denizen_read.progress set at = at - interval '2 min' where projection <> 'plans'")
    told = {version.projection: version for version in (await control.overview())[0]}
    assert [(each.lag_events, each.lag_ms_p50, each.lag_ms_p99) for each in told.values()] == [(None, None, None)] * 2
    assert told["directory"].as_of is not None


def test_lateness_is_that_of_the_last_minute() -> None:
    history, now = History(), [1_000.0]
    sign_ups(history, 2)
    lag = Lag("plans", clock=lambda: now[0])
    assert lag.percentiles() == (None, None)
    lag.applied(history.events, 2)
    assert None not in lag.percentiles()
    now[0] += 61
    assert lag.percentiles() == (None, None)
    lag.applied(history.events[1:], 1)
    assert None not in lag.percentiles()


def test_a_projection_that_stands_still_has_no_measure_of_what_is_missing() -> None:
    def measured() -> float | None:
        return REGISTRY.get_sample_value("denizen_projection_behind", {"projection": "still"})

    lag, other = Lag("still"), Lag("still")
    lag.behind(5)
    assert measured() == 5
    lag.close()
    assert measured() is None
    other.behind(3)  # another version of it
    assert measured() == 3
    other.close()


async def test_an_unknown_event_pauses_with_that_reason_and_a_newer_program_goes_on(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    sign_ups(history, 2)

    class Older(HistoryFeed):
        async def next_batch(self, max_events: int, max_wait_s: float) -> Batch:
            batch = await super().next_batch(max_events, max_wait_s)
            if not batch.events:
                raise UnknownEvent("event type 99 is unknown to this version: upgrade it")
            return batch

    @asynccontextmanager
    async def older(starts: Mapping[Bucket, int]) -> AsyncIterator[Feed]:
        yield Older(history, starts)

    async with projecting(read_database, history, older):
        paused = (
            "select count(*) from denizen_read.projections where state = 'paused' and reason like 'unknown event%99%'"
        )
        await until(connection, paused, 2)
        assert await connection.fetchval("select count(*) from denizen_read.directory") == 2
    sign_ups(history, 1)
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.directory", 3)


async def test_a_parked_stream_flows_again_when_an_operator_skips_its_event(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    ann = history.register(bucket=7)
    history.record(ann, AttributesChanged(changed={"plan": "poison"}))
    history.record(ann, AttributesChanged(changed={"plan": "gold"}))
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.parked", 1)
        await until(connection, "select count(*) from denizen_read.directory", 1)
        await registry.wish(connection, "plans", ann, "skip")
        await until(connection, "select count(*) from denizen_read.parked", 0)
        await until(connection, "select plan from denizen_read.plans", "gold")


async def test_a_table_that_is_gone_pauses_its_projection_only(
    read_database: Database, connection: asyncpg.Connection
) -> None:
    history = History()
    sign_ups(history, 1)
    async with projecting(read_database, history):
        await until(connection, "select count(*) from denizen_read.plans", 1)
        await connection.execute("drop table denizen_read.plan_words_v1 cascade")
        sign_ups(history, 1)
        await until(connection, "select count(*) from denizen_read.directory", 2)
        await until(connection, "select state from denizen_read.projections where projection = 'plans'", "paused")
        assert "plan_words_v1" in str((await version_of(connection, "plans")).reason)


async def test_a_second_projector_waits_and_takes_over(read_database: Database, connection: asyncpg.Connection) -> None:
    history = History()
    sign_ups(history, 1)
    first = asyncio.create_task(
        Projector(read_database.connect_args, PROJECTIONS, opener(history), history.stream).run()
    )
    await until(connection, "select count(*) from denizen_read.plans", 1)
    async with projecting(read_database, history):
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        sign_ups(history, 4)
        await until(connection, "select count(*) from denizen_read.plans", 5)
        await until(connection, "select sum(users)::int from denizen_read.plan_counts", 5)
