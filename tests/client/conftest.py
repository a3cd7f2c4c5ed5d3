"""One HTTP server per test process, and a proxy before it that can lose replies."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from faulty_proxy import FaultyProxy

from denizen.client import Client, RetryPolicy
from denizen.testing.http import RunningServer, running_server
from denizen.testing.postgres import ThrowawayServer

QUICK = RetryPolicy(attempts_max=4, first_wait_s=0.01, wait_s_max=0.05)


@pytest.fixture(scope="session")
def server(postgres_server: ThrowawayServer) -> Iterator[RunningServer]:
    databases = [postgres_server.create_database() for _ in range(2)]
    with running_server(databases) as running:
        yield running
    for database in databases:
        postgres_server.drop_database(database)


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client(server.url, server.admin_key, retries=QUICK) as opened:
        yield opened


@pytest.fixture
async def proxy(server: RunningServer) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(server.host, server.port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield proxy
    listener.close()
    await listener.wait_closed()


@pytest.fixture
async def shaky(server: RunningServer, proxy: FaultyProxy) -> AsyncIterator[Client]:
    """A client behind the proxy."""
    async with Client(proxy.url, server.admin_key, retries=QUICK, timeout_s=5.0) as opened:
        yield opened
