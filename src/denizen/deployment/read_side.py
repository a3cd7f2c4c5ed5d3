"""The read side of a deployment: its database, and how its processes read the shards."""

from collections.abc import Mapping
from typing import Any

import asyncpg

from denizen import limits
from denizen.bus.shards import ShardReaders
from denizen.deployment.config import hide_password
from denizen.deployment.control_access import map_source_of
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.postgres.migrations import Migration
from denizen.projections.database import DATABASE, claim, migrate_read


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
