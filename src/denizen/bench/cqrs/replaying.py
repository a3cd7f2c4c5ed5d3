"""The replay of the directory end to end: read, fold, write, index, verify; and the same by the rival.

A deployment with two shards is filled with events by COPY (three a user), sealed as the gateway seals them. A first
replay makes the version to compare with. The second one, begun when everything that was filled is published, is
measured: `denizen replay run` with a worker for each core, then `denizen replay verify`, from the start of the first
process to the end of the last. Where the machine is shared, the work is also given in processor time of everything that
took part: what free cores would do follows from it.
"""

import asyncio
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import asyncpg
from msgspec import Struct
from rich.console import Console

from denizen.bench.cqrs import library
from denizen.bench.cqrs.plant import Plant
from denizen.bench.quiet import wait_until_quiet
from denizen.bench.report import Figure
from denizen.deployment.layout import Deployment
from denizen.events.records import RecordedEvent
from denizen.events.scanning import copy_buckets, histories
from denizen.events.store import connect
from denizen.sharding.bucket_map import read_map
from denizen.sharding.ids import ShardId
from denizen.testing.events import fill_shard

BAR = 100_000
RIVAL_EVENTS = 3_000
RELAY_SECONDS = 90.0
PAUSED = ("directory", "activity", "statistics")


class Took(Struct, frozen=True):
    """What a replay took."""

    seconds: float
    verify_seconds: float
    processor_seconds: float


def measure(plant: Plant, events: int, console: Console) -> list[Figure]:
    """Fill the shards, replay twice, let the rival replay a part of the same events."""
    for name in PAUSED:
        denizen(plant, "projections", "pause", name)
    filled = fill(plant, events)
    console.print(f"{filled:,} events in the shards; a first replay makes the version to compare with")
    denizen(plant, "replay", "run", "directory")
    denizen(plant, "replay", "promote", "directory", "--unverified")
    if not wait_until_quiet(RELAY_SECONDS):  # the relays publish what was filled, which is no part of a replay
        console.print("the machine is not quiet: something else works beside the replay")
    took = _replay(plant)
    console.print("the rival replays a part of the same events")
    rival, rival_processor = asyncio.run(_rival(plant))
    cores = len(os.sched_getaffinity(0))
    return [
        Figure("replay end to end, by the clock", (filled / took.seconds,), "events/s", f"≥ {BAR:,}", at_least=BAR),
        Figure("of it verify", (took.verify_seconds,), "s"),
        Figure(
            f"replay, by processor time on {cores} free cores",
            (filled * cores / took.processor_seconds,),
            "events/s",
        ),
        Figure("the `eventsourcing` library's replay, by the clock", (rival,), "events/s"),
        Figure("ours ÷ the library's", (filled / took.seconds / rival,), "×", "≥ 10", at_least=10),
        Figure("the same by processor time", (filled / took.processor_seconds / rival_processor,), "×"),
    ]


def _replay(plant: Plant) -> Took:
    before, began = _processor_seconds(plant), time.monotonic()
    denizen(plant, "replay", "run", "directory")
    loaded = time.monotonic()
    denizen(plant, "replay", "verify", "directory")
    ended = time.monotonic()
    return Took(ended - began, ended - loaded, _processor_seconds(plant) - before)


def fill(plant: Plant, events: int) -> int:
    """Write so many events into the shards, a process for each; how many there are."""
    shards = list(plant.running.deployment.shards)
    tasks = [(plant.running.data, shard, events // len(shards), number) for number, shard in enumerate(shards)]
    with multiprocessing.get_context("spawn").Pool(len(tasks)) as pool:
        return sum(pool.starmap(_fill_shard, tasks))


def _fill_shard(data: Path, shard: ShardId, events: int, seed: int) -> int:
    deployment = Deployment.load(data)
    deployment.use_keyring()
    buckets = read_map(deployment.map_path).buckets_of(shard)

    async def write() -> int:
        connection = await connect(deployment.shards[shard].connect_args)
        await fill_shard(connection, buckets, events, seed=seed)
        await connection.execute("analyze denizen.events")
        filled: int = await connection.fetchval("select sum(head)::bigint from denizen.buckets")
        await connection.close()
        return filled

    return asyncio.run(write())


async def _rival(plant: Plant) -> tuple[float, float]:
    """Events a second of the library, by the clock and by processor time, on the read database's server."""
    streams = await _some_streams(plant)
    connect_args = {**plant.running.deployment.read_connect_args, "database": "rival"}
    server = await asyncpg.connect(**{**connect_args, "database": "postgres"})
    await server.execute("create database rival")
    await server.execute("alter database rival set synchronous_commit = off")
    await server.close()
    connection = await asyncpg.connect(**connect_args)
    for statement in library.tables():
        await connection.execute(statement)
    await connection.close()
    environment = library.environment(connect_args)
    saved = await asyncio.to_thread(library.save, environment, streams)
    before = _processor_seconds(plant) + time.process_time()
    seconds = await asyncio.to_thread(library.replay, environment, saved)
    return saved / seconds, saved / (_processor_seconds(plant) + time.process_time() - before)


async def _some_streams(plant: Plant) -> dict[UUID, list[RecordedEvent]]:
    """The histories of the first users of the first shard."""
    deployment = plant.running.deployment
    deployment.use_keyring()
    shard = next(iter(deployment.shards.values()))
    buckets = read_map(deployment.map_path).buckets_of(shard.id)
    connection = await connect(shard.connect_args)
    streams: dict[UUID, list[RecordedEvent]] = {}
    events = 0
    for history in histories(await copy_buckets(connection, buckets[:256])):
        for stream, recorded in history.streams.items():
            if events < RIVAL_EVENTS:
                streams[stream] = recorded
                events += len(recorded)
    await connection.close()
    return streams


def denizen(plant: Plant, *arguments: str, check: bool = True) -> int:
    """Run a command on the deployment; its exit code, which must be 0 with `check`."""
    command = [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(plant.running.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"denizen {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.returncode


def _processor_seconds(plant: Plant) -> float:
    """What the servers and our children that ended used so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = plant.used().seconds
    return children.ru_utime + children.ru_stime + used["shards"] + used["read database"]
