"""A bus and a shard for each test: a NATS server starts in hundredths of a second, and may be killed."""

from collections.abc import AsyncIterator, Iterator

import pytest

from denizen.bus.server import NatsServer
from denizen.testing.bus import throwaway_nats
from denizen.testing.postgres import Database

from .plane import Plane, running_plane


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A NATS server of this test's own."""
    with throwaway_nats() as server:
        yield server


@pytest.fixture
async def plane(database: Database, nats_server: NatsServer) -> AsyncIterator[Plane]:
    """One shard with every bucket, and a bus; no relay runs yet."""
    async with running_plane([database], nats_server) as plane:
        yield plane
