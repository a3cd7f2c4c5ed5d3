"""A process of relays: one for each shard, until a signal asks to stop."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

import structlog

from denizen.bus.listening import listen_for_hints
from denizen.bus.relay import Relay
from denizen.bus.settings import BusSettings
from denizen.bus.tasks import end_tasks
from denizen.sharding.ids import ShardId

_log = structlog.get_logger()


async def serve_relays(shards: Mapping[ShardId, dict[str, Any]], bus: BusSettings) -> None:
    """Run a relay for each shard (with its arguments of `asyncpg.connect`) until SIGTERM or SIGINT.

    A relay ends by itself only by a defect; then all end, and the error is raised.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    relays = [Relay(shard, arguments, bus) for shard, arguments in shards.items()]
    tasks = [loop.create_task(relay.run()) for relay in relays]
    tasks.append(loop.create_task(listen_for_hints(bus, {relay.shard: relay.hear for relay in relays})))
    stopping = loop.create_task(stop.wait())
    _log.info("relays_started", shards=list(shards))
    try:
        ended, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await end_tasks([stopping, *tasks])
    _log.info("relays_stopped")
