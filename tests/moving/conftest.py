"""Two real servers: buckets move from the one to the other."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from denizen.moving.mover import Mover
from denizen.testing.gateway import KINDS, SEED
from denizen.testing.postgres import ThrowawayServer, throwaway_server

from .worlds import World, arranged


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ThrowawayServer, ThrowawayServer]]:
    """The source's server and the target's; tests may restart them."""
    with throwaway_server() as one, throwaway_server() as two:
        yield one, two


@pytest.fixture
async def world(servers: tuple[ThrowawayServer, ThrowawayServer]) -> AsyncIterator[World]:
    """Two shards, s1 with all buckets and s2 with none, and a gateway over them."""
    before = asyncio.all_tasks()
    async with arranged(servers) as world:
        yield world
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before


@pytest.fixture
async def mover(world: World) -> AsyncIterator[Mover]:
    """A mover between the two."""
    async with Mover(world.connect_args, SEED, KINDS, workers=1) as mover:
        yield mover
