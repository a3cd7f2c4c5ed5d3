"""One HTTP server per test process, over two real shards; requests through aiohttp or a bare socket."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from http_api import Api

from denizen.testing.http import RunningServer, running_server
from denizen.testing.postgres import ThrowawayServer


@pytest.fixture(scope="session")
def server(postgres_server: ThrowawayServer) -> Iterator[RunningServer]:
    databases = [postgres_server.create_database() for _ in range(2)]
    read_database = postgres_server.create_database(template="template0")
    with running_server(databases, read_database=read_database) as running:
        yield running
    for database in (*databases, read_database):
        postgres_server.drop_database(database)


@pytest.fixture
async def api(server: RunningServer) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        yield Api(session, server, server.admin_key)


@pytest.fixture
def make_key(api: Api) -> Callable[..., Awaitable[Api]]:
    """Makes keys: `await make_key("users:read", rate_per_s=5)` is the API with that key."""

    async def make(*scopes: str, **fields: Any) -> Api:
        answer = await api("POST", "/v1/keys", {"name": "test", "scopes": list(scopes), **fields})
        assert answer.status == 201, answer.raw
        return api.with_key(answer.json["secret"])

    return make


@pytest.fixture
def connect(server: RunningServer) -> Iterator[Callable[[], socket.socket]]:
    """Makes bare connections, closed at the end."""
    opened = []

    def make() -> socket.socket:
        connection = socket.create_connection((server.host, server.port), timeout=10)
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.close()
