"""A read database of each test's own."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from denizen.projections import registry
from denizen.projections.database import connect_writer, migrate_read
from denizen.testing.postgres import Database, ThrowawayServer, run_blocking

from .plans import PLANS


@pytest.fixture(scope="session")
def read_template(postgres_server: ThrowawayServer) -> Database:
    """A migrated, empty read database, to be copied."""
    template = postgres_server.create_database(template="template0")
    run_blocking(migrate_read(template.connect_args))
    return template


@pytest.fixture
def read_database(postgres_server: ThrowawayServer, read_template: Database) -> Iterator[Database]:
    """A migrated read database of this test's own."""
    fresh = postgres_server.create_database(template=read_template.name)
    yield fresh
    postgres_server.drop_database(fresh)


@pytest.fixture
async def connection(read_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A projector's, with the first version of the plans live."""
    connection = await connect_writer(read_database.connect_args)
    async with connection.transaction():
        await registry.create_version(connection, PLANS, 1, state="running", indexed=True)
        await registry.make_live(connection, PLANS, 1)
    yield connection
    await connection.close()
