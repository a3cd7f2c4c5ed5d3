"""A projector over throwaway databases: the real one, without a process and without a bus of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from denizen.bus.batches import Feed
from denizen.bus.feed import EventFeed
from denizen.bus.shards import Shards
from denizen.events.reading import read_stream
from denizen.events.records import RecordedEvent
from denizen.projections.catalogue import catalogue
from denizen.projections.database import migrate_read
from denizen.projections.projection import Projection
from denizen.projections.projector import Projector
from denizen.sharding.ids import Bucket, bucket_of
from denizen.testing.postgres import Database


@asynccontextmanager
async def projecting(
    read_database: Database, shards: Shards, projections: Mapping[str, Projection] | None = None
) -> AsyncIterator[Projector]:
    """Keep the read models of these shards in the read database, for the length of the block.

    `projections` are those that come with Denizen if none are named.
    """
    await migrate_read(read_database.connect_args)

    @asynccontextmanager
    async def open_feed(starts: Mapping[Bucket, int]) -> AsyncIterator[Feed]:
        async with EventFeed(None, shards, starts, name="tests") as feed:
            yield feed

    async def stream(identifier: UUID, after: int) -> list[RecordedEvent]:
        return await shards.read(
            bucket_of(identifier),
            lambda connection: read_stream(connection, identifier, after_version=after, limit=10_000),
        )

    projector = Projector(read_database.connect_args, projections or catalogue(), open_feed, stream)
    task = asyncio.create_task(projector.run(), name="projector")
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
