"""A gateway's engine over throwaway databases: the real service, without processes of its own."""

import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from denizen.events import sealing
from denizen.events.keyring import Keyring, WrappingKey
from denizen.events.provisioning import provision
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import BucketMap, LocalMapSource, initial_map, write_map
from denizen.sharding.ids import ShardId
from denizen.testing.postgres import Database
from denizen.users.login_names import LoginNameKind

SEED = 7
DEPLOYMENT = UUID(int=1)
KEYRING = Keyring([WrappingKey("00000001", datetime(2026, 1, 1, tzinfo=UTC), b64encode(bytes(range(64))).decode())])
KINDS = frozenset({LoginNameKind.EMAIL, LoginNameKind.USERNAME})


async def provision_all(databases: Sequence[Database]) -> BucketMap:
    """Make each migrated, empty database a shard: s1, s2, …; the map over them. `KEYRING` is used from now on."""
    sealing.use(KEYRING)
    bucket_map = initial_map([ShardId(f"s{number}") for number in range(1, len(databases) + 1)])
    for shard, database in zip(bucket_map.shards, databases, strict=True):
        connection = await asyncpg.connect(**database.connect_args)
        try:
            await provision(connection, DEPLOYMENT, shard, bucket_map.buckets_of(shard))
        finally:
            await connection.close()
    return bucket_map


@asynccontextmanager
async def running_gateway(
    databases: Sequence[Database], *, kinds: frozenset[LoginNameKind] = KINDS, **options: Any
) -> AsyncIterator[Gateway]:
    """A started gateway over these databases, which become its shards if they are none yet."""
    bucket_map = await provision_all(databases)
    with tempfile.TemporaryDirectory(prefix="denizen-") as directory:
        path = Path(directory) / "map.json"
        write_map(path, bucket_map)
        shards = {shard: database.connect_args for shard, database in zip(bucket_map.shards, databases, strict=True)}
        async with Gateway(shards, LocalMapSource(path), SEED, kinds, **options) as gateway:
            yield gateway
