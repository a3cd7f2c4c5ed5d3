"""Worlds of one, two or four shards."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from denizen.service.gateway import Gateway
from denizen.testing.pool import DatabasePool
from denizen.testing.postgres import ThrowawayServer

from .worlds import World


@pytest.fixture(scope="session")
def pool(postgres_server: ThrowawayServer) -> DatabasePool:
    """Databases for the shards."""
    return DatabasePool(postgres_server)


@pytest.fixture
def world(pool: DatabasePool, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two shards, or as many as the test's parameter `world` says."""
    with pool.databases(getattr(request, "param", 2)) as databases:
        yield World(databases)


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[Gateway]:
    """A gateway over the world."""
    before = asyncio.all_tasks()
    async with world.gateway() as gateway:
        yield gateway
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before  # every task had an owner that stopped it
