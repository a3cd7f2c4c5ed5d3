"""The read side: the replay of the directory end to end, and searching it.

    denizen bench projections --events 600000

A deployment with two shards is filled with events by COPY (three a user). Then a replay reads, folds, writes, indexes
and verifies them, with two workers. Machines are shared, so the work is also given in CPU seconds of everything that
took part (workers and PostgreSQL): what two free cores would do follows from it.
"""

import asyncio
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from denizen.bench.report import Figure, publish
from denizen.events.store import connect
from denizen.projections.directory.search import Search, search
from denizen.projections.reading import ReadModels
from denizen.sharding.bucket_map import read_map
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.events import fill_shard

EVENTS = 600_000
SEARCHES = 500
CORES = 2
CONFIGURATION = '[postgres]\nmemory = "2GB"\n'
PREFIXES = ("a", "sm", "mul", "jur", "nowak1", "mari", "ива", "山", "g", "ross")


def measure(events: int = EVENTS, console: Console | None = None) -> list[Figure]:
    """Fill, replay twice (the second is compared with the first), search."""
    with throwaway_deployment(shards=2, configuration=CONFIGURATION) as running:
        for name in ("directory", "activity", "statistics"):
            _wait_and_pause(running, name)
        filled = asyncio.run(_fill(running, events))
        if console:
            console.print(f"{filled:,} events in two shards")
        _replay(running, "run", "directory")
        _replay(running, "promote", "directory", "--unverified")
        cpu, began = _cpu_seconds(running), time.monotonic()
        _replay(running, "run", "directory", "--workers", str(CORES))
        loaded = time.monotonic()
        _replay(running, "verify", "directory")
        wall, used = time.monotonic() - began, _cpu_seconds(running) - cpu
        times = asyncio.run(_search(running))
    return [
        Figure("replay end to end, by the clock", (filled / wall,), "events/s"),
        Figure(
            f"replay end to end, on {CORES} free cores by CPU seconds", (filled * CORES / used,), "events/s",
            bar=">= 100,000", at_least=100_000,
        ),
        Figure("of it verify", (wall - (loaded - began),), "s"),
        Figure("name prefix search, p50", (times[len(times) // 2],), "ms"),
        Figure("name prefix search, p99", (times[len(times) * 99 // 100],), "ms", bar="<= 20", at_most=20),
    ]  # fmt: skip


async def _fill(running: RunningDeployment, events: int) -> int:
    deployment = running.deployment
    deployment.use_keyring()
    bucket_map = read_map(deployment.map_path)
    filled = 0
    for number, shard in enumerate(deployment.shards.values()):
        connection = await connect(shard.connect_args)
        await fill_shard(connection, bucket_map.buckets_of(shard.id), events // 2, seed=number)
        await connection.execute("analyze denizen.events")
        filled += await connection.fetchval("select sum(head)::bigint from denizen.buckets")
        await connection.close()
    return filled


async def _search(running: RunningDeployment) -> list[float]:
    chance = random.Random(1)  # noqa: S311 - not a secret
    times = []
    async with ReadModels(running.deployment.read_connect_args) as reads, reads.reader() as connection:
        for number in range(SEARCHES + 20):
            began = time.perf_counter()
            await search(connection, Search(limit=20, name=chance.choice(PREFIXES)))
            if number >= 20:
                times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


def _wait_and_pause(running: RunningDeployment, name: str) -> None:
    deadline = time.monotonic() + 30
    while _denizen(running, "projections", "pause", name).returncode != 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the projector did not make {name}")
        time.sleep(0.2)


def _replay(running: RunningDeployment, *arguments: str) -> None:
    done = _denizen(running, "replay", *arguments)
    if done.returncode != 0:
        raise RuntimeError(f"denizen replay {' '.join(arguments)}: {done.stdout}{done.stderr}")


def _denizen(running: RunningDeployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(running.data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _cpu_seconds(running: RunningDeployment) -> float:
    """What our children that ended and the PostgreSQL servers used so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    servers = {server.pid for server in running.deployment.state().shards.values()}
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended meanwhile
        pid, parent = int(stat.parent.name), int(fields[1])
        if pid in servers:
            ticks += sum(int(field) for field in fields[11:15])  # its own and of its children that ended
        elif parent in servers:
            ticks += int(fields[11]) + int(fields[12])
    return children.ru_utime + children.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def run(events: int = EVENTS) -> None:
    """Measure and publish."""
    publish("projections", measure(events, Console()), {"events": events})


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS)
