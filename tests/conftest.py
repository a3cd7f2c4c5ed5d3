"""Fixtures that all tests share: one PostgreSQL server per test process, a database per test; bad listeners."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from denizen.events import sealing
from denizen.testing.gateway import KEYRING
from denizen.testing.postgres import Database, ThrowawayServer, throwaway_server


@pytest.fixture(scope="module", autouse=True)
def _keyring() -> None:
    """The keys of databases that belong to no deployment; a module that reads a real one's events uses that one's."""
    sealing.use(KEYRING)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[ThrowawayServer]:
    """A running PostgreSQL server, shared by the tests of this process: leave its settings and roles alone."""
    with throwaway_server() as server:
        yield server


@pytest.fixture
def database(postgres_server: ThrowawayServer) -> Iterator[Database]:
    """A migrated database of this test's own."""
    fresh = postgres_server.create_database()
    yield fresh
    postgres_server.drop_database(fresh)


@pytest.fixture
def empty_database(postgres_server: ThrowawayServer) -> Iterator[Database]:
    """A database of this test's own without any schema."""
    fresh = postgres_server.create_database(template="template0")
    yield fresh
    postgres_server.drop_database(fresh)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server whose system takes no further connections: who comes waits for one."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # more than it queues
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
