"""One real shard that owns every bucket."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from denizen.events.store import ShardStore, connect
from denizen.sharding.ids import ShardId
from denizen.testing.gateway import provision_all
from denizen.testing.pool import DatabasePool
from denizen.testing.postgres import Database, ThrowawayServer


@pytest.fixture(scope="session")
def pool(postgres_server: ThrowawayServer) -> DatabasePool:
    """Databases for the shard."""
    return DatabasePool(postgres_server)


@pytest.fixture
def database(pool: DatabasePool) -> Iterator[Database]:
    """A migrated database without rows."""
    with pool.databases(1) as (database,):
        yield database


@pytest.fixture
async def shard(database: Database) -> Database:
    """A database made the only shard of a deployment."""
    await provision_all([database])
    return database


@pytest.fixture
async def store(shard: Database) -> AsyncIterator[ShardStore]:
    """The shard's store, started."""
    store = ShardStore(ShardId("s1"), shard.connect_args, lanes=2)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def connection(shard: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the store's own settings."""
    connection: Any = await connect(shard.connect_args)
    yield connection
    await connection.close()
