"""The read side of a deployment: its database, and the projector that fills it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from denizen import limits
from denizen.bus.batches import Feed
from denizen.bus.feed import EventFeed
from denizen.bus.shards import ShardReaders
from denizen.deployment.config import hide_password
from denizen.deployment.control_access import map_source_of
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.reading import read_stream
from denizen.events.records import RecordedEvent
from denizen.postgres.migrations import Migration
from denizen.projections.catalogue import catalogue
from denizen.projections.database import DATABASE, claim, migrate_read
from denizen.projections.projector import Projector
from denizen.sharding.ids import Bucket, bucket_of

_log = structlog.get_logger()


class ReadDatabaseAway(BadDeployment):
    """The read database does not answer."""


async def prepare_read(deployment: Deployment) -> list[Migration]:
    """Bring the running server's read database to this program's schema; on a server of ours, made if it is missing.

    Raises `ReadDatabaseAway`; another `BadDeployment` if the database belongs to somebody else.
    """
    arguments = deployment.read_connect_args
    try:
        if deployment.read_dsn is None:
            await _create_missing(arguments)
        ran = await migrate_read(arguments)
        await claim(arguments, deployment.id)
        return ran
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        place = hide_password(arguments.get("dsn", "its own server"))
        raise ReadDatabaseAway(
            f"the read database ({place}) does not answer: {error or type(error).__name__}"
        ) from error


async def _create_missing(arguments: Mapping[str, Any]) -> None:
    connection = await asyncpg.connect(**{**arguments, "database": "postgres", "timeout": limits.shard_connect_s})
    try:
        if not await connection.fetchval("select exists (select from pg_database where datname = $1)", DATABASE):
            await connection.execute(f"create database {DATABASE}")
    finally:
        await connection.close()


def readers_of(deployment: Deployment) -> ShardReaders:
    """The deployment's shards, for reading; not started."""
    deployment.use_keyring()
    return ShardReaders(deployment.places, map_source_of(deployment))


async def serve_projector(deployment: Deployment) -> None:
    """Apply events to every projection, as soon as the read database is there, until a signal asks to stop."""
    loop = asyncio.get_running_loop()
    async with readers_of(deployment) as shards:
        work = asyncio.create_task(_project(deployment, shards), name="projector")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.wait({work})
        if not work.cancelled():
            work.result()  # it ends only by a defect


async def _project(deployment: Deployment, shards: ShardReaders) -> None:
    while True:
        try:
            await prepare_read(deployment)
            break
        except ReadDatabaseAway as error:
            _log.warning("read_database_away", detail=error.detail)
            await asyncio.sleep(limits.projector_retry_s)
    await _projector(deployment, shards).run()


def _projector(deployment: Deployment, shards: ShardReaders) -> Projector:
    @asynccontextmanager
    async def open_feed(starts: Mapping[Bucket, int]) -> AsyncIterator[Feed]:
        async with EventFeed(deployment.bus, shards, starts, name="projector") as feed:
            yield feed

    async def stream(identifier: UUID, after: int) -> list[RecordedEvent]:
        limit = limits.projector_stream_events_max
        return await shards.read(
            bucket_of(identifier),
            lambda connection: read_stream(connection, identifier, after_version=after, limit=limit),
        )

    return Projector(deployment.read_connect_args, catalogue(), open_feed, stream)
