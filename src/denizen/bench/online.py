"""An online writer beside a bulk load: signs somebody up now and then through the user service, and takes the time."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from denizen.bulk.shards import kinds_of
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.service.context import Context
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import LocalMapSource
from denizen.users.commands import Registration

_PAUSE_S = 0.05


@contextmanager
def online_writer(deployment: Deployment) -> Iterator[list[float]]:
    """Write for the length of the block; the latencies in milliseconds, complete when the block has ended."""
    latencies: list[float] = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_write(deployment, latencies, stop)))
    thread.start()
    try:
        yield latencies
    finally:
        stop.set()
        thread.join()


async def _write(deployment: Deployment, latencies: list[float], stop: threading.Event) -> None:
    deployment.use_keyring()
    shards = {shard.id: shard.connect_args for shard in deployment.shards.values()}
    source = LocalMapSource(deployment.map_path)
    async with Gateway(shards, source, deployment.hash_seed, kinds_of(deployment)) as gateway:
        number = 0
        while not stop.is_set():
            number += 1
            began = time.perf_counter()
            try:
                await gateway.users.register(Registration(email=f"online{number}@example.net"), Context("bench"))
            except DenizenError:
                latencies.append(float("inf"))
            else:
                latencies.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(_PAUSE_S)
