"""From an empty PostgreSQL database to a shard of this deployment.

Every step may be the last before a crash, and is done again by the next start: the database is made if it is missing,
migrations run once each, and the shard's claim (whose it is, and a row for each bucket it owns) is one transaction.
The same makes a shard that joins later, which owns no bucket yet. After that nothing is made anew: a missing database
is lost data, and must be said.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import asyncpg

from denizen import limits
from denizen.deployment.config import hide_password
from denizen.deployment.layout import Deployment, ShardServer
from denizen.errors import BadDeployment
from denizen.events.provisioning import check_identity, is_a_shard, provision
from denizen.postgres.binaries import OLDEST_MAJOR
from denizen.postgres.migrations import Migration, migrate
from denizen.postgres.server import DATABASE
from denizen.sharding.bucket_map import BucketMap, initial_map, read_map, write_map


def ensure_map(deployment: Deployment) -> BucketMap:
    """Return the deployment's bucket map; at the birth, write the first one."""
    if not deployment.record.born and not deployment.map_path.exists():
        write_map(deployment.map_path, initial_map(deployment.shard_ids))
    return read_map(deployment.map_path)


async def check_given(deployment: Deployment) -> None:
    """Look at every shard's server that is not ours. Raises `BadDeployment` if one is away or not this deployment's.

    One that is still joining has no user, and may be away.
    """
    for shard in deployment.shards.values():
        if not shard.managed and not deployment.joins(shard.id):
            with _naming(shard):
                await _check_server(deployment, shard)


async def prepare_shard(deployment: Deployment, shard: ShardServer, bucket_map: BucketMap) -> list[Migration]:
    """Bring one running server's database to this program's schema, and claim it; return the migrations that ran.

    Raises `BadDeployment` naming the shard if its server does not answer, or is not this deployment's.
    """
    with _naming(shard):
        await _check_server(deployment, shard)
        ran = await migrate(shard.connect_args)
        if _is_fresh(deployment, shard):
            await _make_shard(deployment, shard, bucket_map)
        return ran


@contextmanager
def _naming(shard: ShardServer) -> Iterator[None]:
    """Whatever goes wrong with the shard's server within the block becomes a `BadDeployment` naming the shard."""
    try:
        yield
    except BadDeployment as error:
        raise BadDeployment(f"shard {shard.id}: {error}") from error
    except (OSError, ValueError, OverflowError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        place = hide_password(shard.connect_args.get("dsn", "its own server"))
        raise BadDeployment(f"shard {shard.id}: {place} does not answer: {error or type(error).__name__}") from error


def _is_fresh(deployment: Deployment, shard: ShardServer) -> bool:
    """Whether the shard is being made: it cannot have lost anything."""
    record = next(known for known in deployment.record.shards if known.id == shard.id)
    return record.joining or not (deployment.record.born or record.added)


async def _check_server(deployment: Deployment, shard: ShardServer) -> None:
    try:
        connection = await _connect(shard.connect_args)
    except asyncpg.InvalidCatalogNameError:
        if not shard.managed or not _is_fresh(deployment, shard):
            raise
        await _create_database(shard.connect_args)
        return
    try:
        major = connection.get_server_version().major
        if major < OLDEST_MAJOR:
            raise BadDeployment(f"its server is PostgreSQL {major}; Denizen needs {OLDEST_MAJOR} or newer")
        await _check_owner(connection, deployment, shard)
    finally:
        await connection.close()


async def _connect(arguments: Mapping[str, Any]) -> asyncpg.Connection:
    return await asyncpg.connect(**{"timeout": limits.shard_connect_s, **arguments})


async def _create_database(arguments: Mapping[str, Any]) -> None:
    connection = await _connect({**arguments, "database": "postgres"})
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


async def _check_owner(connection: asyncpg.Connection, deployment: Deployment, shard: ShardServer) -> None:
    """Before anything is changed: raise `BadDeployment` if the data are somebody else's, or ours and gone."""
    if await is_a_shard(connection):
        await check_identity(connection, deployment.id, shard.id)
    elif not _is_fresh(deployment, shard):
        raise BadDeployment("its database is empty, but this deployment had data there: restore it from a backup")


async def _make_shard(deployment: Deployment, shard: ShardServer, bucket_map: BucketMap) -> None:
    connection = await _connect(shard.connect_args)
    try:
        owned = bucket_map.buckets_of(shard.id) if shard.id in bucket_map.shards else []
        await provision(connection, deployment.id, shard.id, owned)
        await connection.execute("VACUUM (ANALYZE) denizen.buckets")
    finally:
        await connection.close()
