"""After the workers: indexes, and the hand-over to the projector; promote, roll back, cancel."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from denizen.bus.shards import Shards
from denizen.errors import BadDeployment
from denizen.events.tailing import read_heads
from denizen.projections import registry
from denizen.projections.projection import Projection
from denizen.projections.registry import Version
from denizen.projections.replay import work
from denizen.projections.replay.worker import connect_bulk
from denizen.projections.tables import SCHEMA

_INDEXING_LOCK: Final = 0x64656E696478  # "denidx"
INDEXERS: Final = 2
# Sorts whose runs fit the processor's cache take a third less time than large ones; what is inverted needs the memory.
_SORT_MEMORY: Final = "8MB"
_GIN_MEMORY: Final = "256MB"
_GIN: Final = "using gin"


async def heads(shards: Shards) -> dict[int, int]:
    """How many events each bucket has, asked of every shard."""
    found: dict[int, int] = {}
    for shard in shards.map.shards:
        buckets = shards.map.buckets_of(shard)
        if buckets:
            answer = await shards.read(buckets[0], read_heads)
            found |= {bucket: answer.get(bucket, 0) for bucket in buckets}
    return found


async def finish_loading(connect_args: Mapping[str, Any], projection: Projection, version: int) -> bool:
    """If all parts are done: make the indexes, then let the projector follow. Whether the version is whole now.

    Killed at any point, it goes on where it was; a second call waits for the first.
    """
    connection = await connect_bulk(connect_args)
    try:
        await connection.execute("set lock_timeout = 0")
        await connection.execute("select pg_advisory_lock($1)", _INDEXING_LOCK)
        replay = await work.replay_of(connection, projection.name, version)
        if replay.parts_done < replay.parts or replay.state == "paused":
            return False
        if replay.state != "done":
            await work.set_state(
                connection, projection.name, version, "indexing", after=("loading", "indexing", "failed")
            )
            await _make_indexes(connect_args, projection, version)
            async with connection.transaction():
                for table in projection.tables:
                    await connection.execute(table.keep_tidy(version, tidy=True))
                await registry.start_following(connection, projection.name, version)
                await work.set_state(connection, projection.name, version, "done", after=("indexing",))
        return True
    finally:
        connection.terminate()


async def _make_indexes(connect_args: Mapping[str, Any], projection: Projection, version: int) -> None:
    statements = [statement for table in projection.tables for statement in table.create_indexes(version)]
    # The large ones first, so that the last ones end together.
    statements.sort(key=lambda statement: (_GIN not in statement, "_key on" not in statement))
    await _side_by_side(connect_args, statements)
    await _side_by_side(connect_args, [f"analyze {SCHEMA}.{table.at(version)}" for table in projection.tables])


async def _side_by_side(connect_args: Mapping[str, Any], statements: list[str]) -> None:
    """Run these statements over a few connections."""

    async def run() -> None:
        connection = await connect_bulk(connect_args)
        try:
            while statements:
                statement = statements.pop(0)
                memory = _GIN_MEMORY if _GIN in statement else _SORT_MEMORY
                await connection.execute(f"set maintenance_work_mem = '{memory}'")
                await connection.execute(statement)
        finally:
            connection.terminate()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(INDEXERS, len(statements))):
            group.create_task(run())


async def promote(connection: asyncpg.Connection, projection: Projection, version: int) -> Version:
    """Let readers see this version, in one transaction; the one before stays and is kept up to date. Returns that."""
    async with connection.transaction():
        found = {
            each.version: each for each in await registry.versions(connection) if each.projection == projection.name
        }
        chosen = found.get(version)
        if chosen is None or chosen.state == "building":
            raise BadDeployment(f"version {version} of {projection.name} is not there, or not whole yet")
        if chosen.definition != projection.definition:
            raise BadDeployment(f"version {version} of {projection.name} was made by another definition of its tables")
        before = next(each for each in found.values() if each.live)
        await registry.make_live(connection, projection, version)
    return before


async def rollback(connection: asyncpg.Connection, projection: Projection) -> int:
    """Promote the version that was live before this one; its number."""
    found = [each for each in await registry.versions(connection) if each.projection == projection.name]
    earlier = [each for each in found if not each.live and each.promoted_at is not None]
    if not earlier:
        raise BadDeployment(f"{projection.name} has no version that was live before")
    version = max(earlier, key=lambda each: str(each.promoted_at)).version
    await promote(connection, projection, version)
    return version


async def cancel(connection: asyncpg.Connection, projection: str, version: int, *, unknown: bool = False) -> None:
    """Remove a version that is not live, and its replay; workers on it fail, and change nothing.

    Of a projection that is `unknown` to this program, a live one too.
    """
    await work.set_state(
        connection, projection, version, "paused", after=("loading", "failed", "indexing"), error="cancelled"
    )
    async with connection.transaction():
        await registry.drop_version(connection, projection, version, unknown=unknown)
