"""A read database of each test's own."""

from collections.abc import Iterator

import pytest

from denizen.projections.database import migrate_read
from denizen.testing.postgres import Database, ThrowawayServer, run_blocking


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
