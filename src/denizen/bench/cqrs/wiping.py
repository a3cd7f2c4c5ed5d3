"""NATS killed and wiped to nothing under load: how soon the read models are level again, and whether they are right.

The stream's files are removed and the server is killed (SIGKILL) while changes go on at a steady rate; the supervisor
starts an empty one. Meanwhile and afterwards every fifth change is looked for until a reader sees it. Level again means
that everything acknowledged before the server's return is visible. In the end every read model is made anew from the
shards by a replay, and compared with the live one row for row: nothing is missing, and nothing was counted twice.
"""

import asyncio
import os
import shutil
import signal
import socket
import time

from denizen.bench.cqrs.lag import LANES, Watcher
from denizen.bench.cqrs.load import paced
from denizen.bench.cqrs.plant import PROJECTIONS, Plant
from denizen.bench.cqrs.replaying import denizen
from denizen.bench.report import Figure
from denizen.projections.reading import ReadModels

RATE = 500
BEFORE_S = 2.0
RETURN_S = 30.0
BAR_S = 10.0


async def measure(plant: Plant, seconds: float) -> list[Figure]:
    """Wipe it in the midst of `seconds` of load."""
    watcher = Watcher(sample=5)
    async with ReadModels(plant.running.deployment.read_connect_args) as reads:
        watching = asyncio.create_task(watcher.watch(reads))
        load = asyncio.create_task(
            paced(plant.target, rate=RATE, seconds=seconds, lanes=LANES, acknowledged=watcher.note)
        )
        await asyncio.sleep(BEFORE_S)
        killed, returned = await asyncio.to_thread(_wipe, plant)
        await load
        await watcher.settle(60)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await plant.until_level()
    meanwhile = [visible for acknowledged, visible in watcher.seen if killed <= acknowledged <= returned]
    level = max([*meanwhile, returned]) - returned
    return [
        Figure("NATS away, killed and wiped", (returned - killed,), "s"),
        Figure("read models level again after its return", (level,), "s", f"≤ {BAR_S:.0f}", at_most=BAR_S),
        Figure("the latest that any change was", (max(watcher.late_ms) / 1000,), "s"),
        Figure("read models that differ from a replay", (await asyncio.to_thread(_wrong, plant),), "", "0", at_most=0),
    ]


def _wipe(plant: Plant) -> tuple[float, float]:
    """Remove the streams, kill the server; when that was, and when there was another one."""
    deployment = plant.running.deployment
    before = deployment.state().bus
    if before is None or before.pid is None:
        raise RuntimeError("there is no NATS server of ours")
    shutil.rmtree(deployment.directory / "bus", ignore_errors=True)
    killed = time.monotonic()
    os.kill(before.pid, signal.SIGKILL)
    while time.monotonic() - killed < RETURN_S:
        now = deployment.state().bus
        if now is not None and now.pid not in (None, before.pid) and now.port and _answers(now.port):
            return killed, time.monotonic()
        time.sleep(0.005)
    raise TimeoutError("NATS did not come back")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


def _wrong(plant: Plant) -> float:
    """How many read models differ from what a replay makes of the events."""
    differ = 0
    for name in PROJECTIONS:
        denizen(plant, "replay", "run", name)
        differ += denizen(plant, "replay", "verify", name, check=False) != 0
    return float(differ)
