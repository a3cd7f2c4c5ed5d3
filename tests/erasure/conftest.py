"""Two shards, so that login names are often on another one than their user."""

from collections.abc import AsyncIterator, Iterator

import pytest

from denizen.service.gateway import Gateway
from denizen.testing.gateway import running_gateway
from denizen.testing.pool import DatabasePool
from denizen.testing.postgres import Database, ThrowawayServer


@pytest.fixture(scope="session")
def pool(postgres_server: ThrowawayServer) -> DatabasePool:
    """Databases for shards."""
    return DatabasePool(postgres_server)


@pytest.fixture
def databases(pool: DatabasePool) -> Iterator[list[Database]]:
    """Two migrated databases without rows."""
    with pool.databases(2) as found:
        yield list(found)


@pytest.fixture
async def gateway(databases: list[Database]) -> AsyncIterator[Gateway]:
    """A gateway whose sweeper leaves everything to the tests."""
    async with running_gateway(databases, sweep_grace_s=3600.0) as gateway:
        yield gateway
