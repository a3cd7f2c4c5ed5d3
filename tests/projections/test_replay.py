"""Replay: rebuilt beside live traffic, resumed, run twice at once; equal row for row; promoted and rolled back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from denizen.errors import BadDeployment
from denizen.projections import registry
from denizen.projections.catalogue import SHIPPED, by_name
from denizen.projections.control import Control
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.projection import Projection
from denizen.projections.replay import work
from denizen.projections.replay.run import cancel, finish_loading, heads, promote, rollback
from denizen.projections.replay.verify import verify
from denizen.projections.replay.worker import connect_bulk, do_parts
from denizen.service import Context
from denizen.service.gateway import Gateway
from denizen.testing.gateway import running_gateway
from denizen.testing.postgres import Database, ThrowawayServer
from denizen.testing.read_models import projecting
from denizen.users.validate import patch_from, registration_from

from .plans import PLANS

PROJECTIONS = by_name([PLANS, DIRECTORY])
CONTEXT = Context("tests")


class Plant(Struct):
    """A gateway over two shards, a projector on its read database, and a connection to look at that."""

    gateway: Gateway
    read: Database
    connection: asyncpg.Connection
    projector: AsyncExitStack
    users: int = 0

    async def run_projector(self, projections: Mapping[str, Projection]) -> None:
        """One with these projections, in place of the one before."""
        await self.projector.aclose()
        await self.projector.enter_async_context(projecting(self.read, self.gateway.router, projections))

    async def sign_up(self, count: int) -> list[Any]:
        registrations = [
            registration_from(
                {
                    "email": f"user{self.users + number}@example.com",
                    "name": {"given": "Ann", "family": f"Smith{number}"},
                    "attributes": {"plan": f"plan {number % 7}"},
                }
            )
            for number in range(count)
        ]
        self.users += count
        written = await self.gateway.users.register_many(registrations, [CONTEXT] * count)
        return [each.user.id for each in written]  # type: ignore[union-attr]

    async def live_writes(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for number, user in enumerate(await self.sign_up(10)):
                patch = patch_from({"attributes": {"plan": f"changed {number}"}})
                await self.gateway.users.change(user, patch, if_version=None, context=CONTEXT)
            await self.gateway.users.delete(user, None, if_version=None, context=CONTEXT)

    async def begin(self, name: str) -> int:
        events = sum((await heads(self.gateway.router)).values())
        return await work.begin(self.connection, PROJECTIONS[name], events)

    async def load(self, name: str, version: int) -> int:
        return await do_parts(self.read.connect_args, PROJECTIONS[name], version, self.gateway.router)

    async def finish(self, name: str, version: int) -> bool:
        return await finish_loading(self.read.connect_args, PROJECTIONS[name], version)

    async def rebuilt(self, name: str) -> int:
        version = await self.begin(name)
        await self.load(name, version)
        assert await self.finish(name, version)
        return version

    def control(self) -> Control:
        """An operator's, whose program has no plans: they are not in the catalogue."""
        return Control(self.read.connect_args, self.gateway.router)

    async def until_level(self) -> None:
        known = await heads(self.gateway.router)
        async with asyncio.timeout(30):
            for version in await registry.versions(self.connection):
                while await registry.checkpoints(self.connection, version.projection, version.version) != known:
                    await asyncio.sleep(0.05)


@pytest.fixture
async def plant(postgres_server: ThrowawayServer, read_database: Database) -> AsyncIterator[Plant]:
    databases = [postgres_server.create_database() for _ in range(2)]
    connection = await connect_bulk(read_database.connect_args)
    async with running_gateway(databases) as gateway, AsyncExitStack() as projector:
        plant = Plant(gateway, read_database, connection, projector)
        await plant.run_projector(PROJECTIONS)
        async with asyncio.timeout(20):
            while len(await registry.versions(connection)) < 2:
                await asyncio.sleep(0.05)
        yield plant
    connection.terminate()
    for database in databases:
        postgres_server.drop_database(database)


async def test_a_rebuild_under_live_writes_ends_equal_row_for_row(plant: Plant) -> None:
    await plant.sign_up(200)
    stop = asyncio.Event()
    writing = asyncio.create_task(plant.live_writes(stop))
    versions = {name: await plant.rebuilt(name) for name in PROJECTIONS}
    under_way = await verify(plant.connection, DIRECTORY, 1, versions["directory"], seconds=20)
    stop.set()
    await writing
    assert not under_way.differences
    await plant.until_level()
    for name, version in versions.items():
        verdict = await verify(plant.connection, PROJECTIONS[name], 1, version)
        assert verdict.equal, verdict
    assert await plant.connection.fetchval("select count(*) from denizen_read.directory_v2") > 200


async def test_a_plan_counts_the_rows_of_tables_that_nobody_has_looked_at(plant: Plant) -> None:
    await plant.sign_up(20)
    await plant.until_level()
    planned = await work.plan(plant.connection, PLANS, 20, 1)
    queries = [f"select count(*) from denizen_read.{table.at(1)}" for table in PLANS.tables]  # noqa: S608
    assert planned.rows == sum([await plant.connection.fetchval(query) for query in queries]) > 20


async def test_a_difference_is_found_and_named(plant: Plant) -> None:
    (ann, *_) = await plant.sign_up(5)
    version = await plant.rebuilt("directory")
    await plant.until_level()
    await plant.connection.execute("update denizen_read.directory_v1 set country = 'XX' where user_id = $1", ann)
    verdict = await verify(plant.connection, DIRECTORY, 1, version)
    assert not verdict.equal
    assert [(found.table, found.user_id) for found in verdict.differences] == [("directory", ann)]


async def test_workers_share_the_parts_and_one_that_breaks_off_leaves_its_part_to_others(plant: Plant) -> None:
    await plant.sign_up(100)
    version = await plant.begin("plans")
    async with plant.connection.transaction():  # one part is somebody else's, so there is one left in any case
        await plant.connection.execute("select from denizen_read.replay_parts order by first desc limit 1 for update")
        broken = asyncio.create_task(plant.load("plans", version))
        await asyncio.sleep(0.1)
        broken.cancel()  # its connection ends in the middle of whatever it does
        await asyncio.gather(broken, return_exceptions=True)
    assert not await plant.finish("plans", version)
    assert await plant.begin("plans") == version  # it goes on with the one under way
    before = (await work.replay_of(plant.connection, "plans")).parts_done
    done = await asyncio.gather(*(plant.load("plans", version) for _ in range(3)))
    replay = await work.replay_of(plant.connection, "plans")
    assert sum(done) == replay.parts - before
    assert replay.events_done == 100
    finished = await asyncio.gather(plant.finish("plans", version), plant.finish("plans", version))
    assert finished == [True, True]
    await plant.until_level()
    assert (await verify(plant.connection, PLANS, 1, version)).equal


async def test_a_paused_replay_stops_and_goes_on(plant: Plant) -> None:
    await plant.sign_up(20)
    version = await plant.begin("plans")
    assert await work.set_state(plant.connection, "plans", version, "paused", after=("loading",))
    assert await plant.load("plans", version) == 0
    assert not await plant.finish("plans", version)
    await work.set_state(plant.connection, "plans", version, "loading", after=("paused",))
    await plant.load("plans", version)
    assert await plant.finish("plans", version)


async def test_a_table_is_vacuumed_by_the_server_again_when_it_is_loaded(plant: Plant) -> None:
    options = "select reloptions from pg_class where oid = 'denizen_read.plans_v2'::regclass"
    version = await plant.begin("plans")
    assert "autovacuum_enabled=false" in await plant.connection.fetchval(options)
    await plant.load("plans", version)
    assert await plant.finish("plans", version)
    assert "autovacuum_enabled=true" in await plant.connection.fetchval(options)


async def test_promotion_and_rollback_change_what_readers_see_at_once_and_both_stay_fresh(plant: Plant) -> None:
    await plant.sign_up(10)
    version = await plant.rebuilt("plans")
    await plant.until_level()
    await plant.connection.execute("update denizen_read.plans_v1 set plan = 'old'")
    seen = "select count(*) from denizen_read.plans where plan = 'old'"
    assert await plant.connection.fetchval(seen) == 10
    await promote(plant.connection, PLANS, version)
    assert await plant.connection.fetchval(seen) == 0
    await plant.sign_up(5)
    await plant.until_level()
    assert await rollback(plant.connection, PLANS) == 1
    assert await plant.connection.fetchval(seen) == 10
    assert await plant.connection.fetchval("select count(*) from denizen_read.plans") == 15
    with pytest.raises(BadDeployment, match="live"):
        await cancel(plant.connection, "plans", 1)
    await cancel(plant.connection, "plans", version)
    assert await plant.connection.fetchval("select to_regclass('denizen_read.plans_v2')") is None


async def test_a_version_that_is_not_whole_is_never_promoted(plant: Plant) -> None:
    await plant.sign_up(3)
    version = await plant.begin("plans")
    with pytest.raises(BadDeployment, match="not whole"):
        await promote(plant.connection, PLANS, version)
    await cancel(plant.connection, "plans", version)
    assert await plant.connection.fetchval("select count(*) from denizen_read.plans") <= 3


async def test_a_comparison_that_found_differences_takes_back_an_earlier_one(plant: Plant) -> None:
    (ann, *_) = await plant.sign_up(5)
    version = await plant.rebuilt("directory")
    await plant.until_level()
    control = plant.control()
    assert (await control.verify("directory", None)).verdict.equal
    await plant.connection.execute("update denizen_read.directory_v2 set country = 'XX' where user_id = $1", ann)
    assert not (await control.verify("directory", version)).verdict.equal
    with pytest.raises(BadDeployment, match="was not verified"):
        await control.promote("directory", None, unverified=False)
    assert await control.promote("directory", None, unverified=True) == version


async def test_versions_that_are_not_there_are_told_and_nothing_else_is_removed(plant: Plant) -> None:
    version = await plant.rebuilt("directory")
    control = plant.control()
    for missing in (0, 99, 2**40):
        with pytest.raises(BadDeployment, match=f"directory has no version {missing}"):
            await control.cancel("directory", missing)
        with pytest.raises(BadDeployment, match=f"directory has no version {missing}"):
            await control.verify("directory", missing)
    with pytest.raises(BadDeployment, match="there is no projection nothing"):
        await control.cancel("nothing", 1)
    assert await control.cancel("directory", None) == version


async def test_what_cannot_be_compared_is_refused_with_the_reason(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, control = await plant.begin("directory"), plant.control()
    with pytest.raises(BadDeployment, match="not whole yet"):
        await control.verify("directory", version)
    await plant.load("directory", version)
    assert await plant.finish("directory", version)
    with pytest.raises(BadDeployment, match="is the live one"):
        await control.verify("directory", 1)
    smaller = Projection("directory", DIRECTORY.fold, state=DIRECTORY.state)
    monkeypatch.setattr("denizen.projections.catalogue.catalogue", lambda: by_name([smaller]))
    with pytest.raises(BadDeployment, match="another definition"):
        await control.verify("directory", version)
    made = "update denizen_read.projections set definition = $1 where projection = 'directory' and version = 2"
    await plant.connection.execute(made, smaller.definition)
    with pytest.raises(BadDeployment, match="promote it with --unverified"):
        await control.verify("directory", version)


async def test_a_version_of_another_definition_is_not_resumed(plant: Plant) -> None:
    await plant.connection.execute(
        "update denizen_read.projections set definition = 'x' where projection = 'directory'"
    )
    await paused(plant, "directory", registry.OTHER_DEFINITION)
    with pytest.raises(BadDeployment, match="version 1 of directory cannot go on: its tables were made by another"):
        await plant.control().set_paused("directory", paused=False)
    assert not await plant.control().set_paused("statistics", paused=False)


async def test_a_projection_whose_package_is_gone_is_paused_removed_and_made_anew_when_it_is_back(plant: Plant) -> None:
    control = plant.control()
    await plant.sign_up(3)
    with pytest.raises(BadDeployment, match="a projector that knows it runs it"):
        await control.cancel("plans", 1)
    await plant.until_level()
    await plant.run_projector(by_name(SHIPPED))
    await paused(plant, "plans", registry.UNKNOWN_PROJECTION)
    with pytest.raises(BadDeployment, match="no such projection"):
        await control.set_paused("plans", paused=False)

    await plant.run_projector(PROJECTIONS)  # it is back: it goes on by itself
    await plant.sign_up(2)
    await until(plant, "select count(*) from denizen_read.plans", 5)

    await plant.run_projector(by_name(SHIPPED))
    await paused(plant, "plans", registry.UNKNOWN_PROJECTION)
    assert await control.cancel("plans", 1) == 1
    left = "select count(*) from pg_class where relnamespace = 'denizen_read'::regnamespace and relname like 'plan%'"
    assert await plant.connection.fetchval(left) == 0
    assert {each.projection for each in await registry.versions(plant.connection)} == {each.name for each in SHIPPED}


async def paused(plant: Plant, name: str, reason: str) -> None:
    await until(
        plant,
        "select state || ': ' || reason from denizen_read.projections where projection = $1",
        f"paused: {reason}",
        name,
    )


async def until(plant: Plant, query: str, expected: Any, *arguments: Any) -> None:
    async with asyncio.timeout(30):
        while await plant.connection.fetchval(query, *arguments) != expected:
            await asyncio.sleep(0.05)
