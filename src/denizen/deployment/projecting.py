"""The projector of a deployment, as a process: events to every read model, until a signal asks to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from denizen import limits
from denizen.bus.batches import Feed
from denizen.bus.feed import EventFeed
from denizen.bus.listening import listen_for_hints
from denizen.bus.rush import GivingWay, Rush
from denizen.bus.shards import ShardReaders
from denizen.bus.tasks import end_tasks
from denizen.deployment.layout import Deployment
from denizen.deployment.read_side import ReadDatabaseAway, prepare_read, readers_of
from denizen.events.reading import read_stream
from denizen.events.records import RecordedEvent
from denizen.projections.catalogue import catalogue
from denizen.projections.projection import PASSED
from denizen.projections.projector import Projector
from denizen.sharding.ids import Bucket, bucket_of

_log = structlog.get_logger()


async def serve_projector(deployment: Deployment) -> None:
    """Apply events to every projection, as soon as the read database is there, until a signal asks to stop."""
    loop = asyncio.get_running_loop()
    async with readers_of(deployment) as shards:
        work = asyncio.create_task(_project(deployment, shards), name="projector")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.wait({work})
        if not work.cancelled():
            work.result()  # it ends only by a defect


async def _project(deployment: Deployment, shards: ShardReaders) -> None:
    while True:
        try:
            await prepare_read(deployment)
            break
        except ReadDatabaseAway as error:
            _log.warning("read_database_away", detail=error.detail)
            await asyncio.sleep(limits.projector_retry_s)
    rush, bus = Rush(), deployment.bus
    projector = _projector(deployment, shards, GivingWay(rush, bus.give_way_s if bus else 0.0))
    tasks = [asyncio.create_task(projector.run())]
    if bus is not None:
        tasks.append(asyncio.create_task(listen_for_hints(bus, rush, {})))
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # they end only by a defect
    finally:
        await end_tasks(tasks)


def _projector(deployment: Deployment, shards: ShardReaders, giving_way: GivingWay) -> Projector:
    @asynccontextmanager
    async def open_feed(starts: Mapping[Bucket, int]) -> AsyncIterator[Feed]:
        async with EventFeed(deployment.bus, shards, starts, name="projector", passed=PASSED) as feed:
            yield feed

    async def stream(identifier: UUID, after: int) -> list[RecordedEvent]:
        limit = limits.projector_stream_events_max
        return await shards.read(
            bucket_of(identifier),
            lambda connection: read_stream(connection, identifier, after_version=after, limit=limit),
        )

    return Projector(deployment.read_connect_args, catalogue(), open_feed, stream, giving_way)
