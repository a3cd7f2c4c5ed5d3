"""Replays of a deployment's read models: worker processes, and each step on the deployment's own databases."""

import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.deployment.layout import Deployment
from denizen.deployment.read_side import readers_of
from denizen.deployment.waiting import until
from denizen.errors import BadDeployment
from denizen.events.reading import read_stream
from denizen.postgres.processes import spawn
from denizen.postgres.server import open_log
from denizen.projections import registry
from denizen.projections.catalogue import catalogue
from denizen.projections.projection import Projection
from denizen.projections.replay import run as steps
from denizen.projections.replay import verify as comparing
from denizen.projections.replay import work
from denizen.projections.replay.work import Plan, Replay
from denizen.projections.replay.worker import connect_bulk, do_parts
from denizen.sharding.ids import bucket_of

PROGRESS_S = 1.0
EXPLAINED_MAX = 20

_VERSIONS = """
    select v.projection, v.version, v.state, v.live, v.reason, p.lag_events, p.as_of, p.lag_ms_p50, p.lag_ms_p99
    from denizen_read.projections v left join denizen_read.progress p using (projection, version) order by 1, 2
"""


def _projection(name: str) -> Projection:
    known = catalogue()
    if name not in known:
        raise BadDeployment(f"there is no projection {name}; there are {', '.join(sorted(known))}")
    return known[name]


@asynccontextmanager
async def _read(deployment: Deployment) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect_bulk(deployment.read_connect_args)
    try:
        yield connection
    finally:
        connection.terminate()


async def plan(deployment: Deployment, name: str, workers: int | None) -> Plan:
    """What a replay would do."""
    projection = _projection(name)
    async with readers_of(deployment) as shards, _read(deployment) as connection:
        events = sum((await steps.heads(shards)).values())
        return await work.plan(connection, projection, events, _workers(workers))


async def run(deployment: Deployment, name: str, workers: int | None, tell: Callable[[Replay], None]) -> Replay:
    """Begin or go on; returns when the version is whole, or the replay was paused or failed."""
    projection = _projection(name)
    async with readers_of(deployment) as shards, _read(deployment) as connection:
        waiting = await work.unfinished(connection, name)
        if waiting is None:
            version = await work.begin(connection, projection, sum((await steps.heads(shards)).values()))
        else:
            version = waiting.version
            await work.set_state(connection, name, version, "loading", after=("paused", "failed"))
        begun = await work.replay_of(connection, name, version)
        await _load(deployment, connection, begun, _workers(workers), tell)
        await steps.finish_loading(deployment.read_connect_args, projection, version)
        replay = await work.replay_of(connection, name, version)
        tell(replay)
        return replay


async def _load(
    deployment: Deployment, connection: asyncpg.Connection, replay: Replay, workers: int, tell: Callable[[Replay], None]
) -> None:
    """Keep workers at it until all parts are done, or they are told to stop, or they fail."""
    name, version = replay.projection, replay.version
    command = [sys.executable, "-P", "-m", "denizen", "replay", "worker", name, str(version)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        with open_log(deployment.logs / "replay.log") as log:
            command += ["--data", str(deployment.directory)]
            children += [spawn(command, log=log) for _ in range(workers)]
        while not await until(lambda: all(child.poll() is not None for child in children), PROGRESS_S):
            tell(await work.replay_of(connection, name, version))
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
    failed = [child.returncode for child in children if child.returncode != 0]
    replay = await work.replay_of(connection, name, version)
    if failed and replay.parts_done < replay.parts:
        error = f"a worker ended with code {failed[0]}; see {deployment.logs / 'replay.log'}"
        await work.set_state(connection, name, version, "failed", after=("loading",), error=error)


async def worker(deployment: Deployment, name: str, version: int) -> int:
    """What one worker process does."""
    gc.disable()  # what a part leaves behind has no cycles, and a walk through all its events costs a fifth of the time
    async with readers_of(deployment) as shards:
        return await do_parts(deployment.read_connect_args, _projection(name), version, shards)


async def status(deployment: Deployment) -> tuple[list[Replay], list[dict[str, Any]]]:
    """Every replay, and every version."""
    async with _read(deployment) as connection:
        return await work.replays(connection), [dict(row) for row in await connection.fetch(_VERSIONS)]


async def overview(deployment: Deployment) -> tuple[list[dict[str, Any]], list[registry.Parked]]:
    """Every version, and every parked stream."""
    async with _read(deployment) as connection:
        return [dict(row) for row in await connection.fetch(_VERSIONS)], await registry.parked(connection)


async def set_paused(deployment: Deployment, name: str, *, paused: bool) -> bool:
    """Pause or resume every version of a projection; whether there was one to change."""
    changed = False
    async with _read(deployment) as connection:
        for version in await registry.versions(connection):
            if version.projection == name and paused:
                changed |= await registry.pause(connection, name, version.version, "an operator paused it")
            elif version.projection == name:
                changed |= await registry.resume(connection, name, version.version)
    return changed


async def wish(deployment: Deployment, name: str, stream: UUID, what: str) -> bool:
    """Ask the projector to "retry" or "skip"; whether the stream is parked."""
    async with _read(deployment) as connection:
        return await registry.wish(connection, name, stream, what)


async def pause(deployment: Deployment, name: str) -> None:
    """Have the workers stop after their parts."""
    async with _read(deployment) as connection:
        waiting = await work.unfinished(connection, name)
        if waiting is None or not await work.set_state(connection, name, waiting.version, "paused", after=("loading",)):
            raise BadDeployment(f"no replay of {name} is loading")


async def cancel(deployment: Deployment, name: str, version: int | None) -> int:
    """Remove a version that is not live."""
    async with _read(deployment) as connection:
        chosen = version or (await work.replay_of(connection, name)).version
        await steps.cancel(connection, _projection(name), chosen)
        return chosen


async def verify(
    deployment: Deployment, name: str, version: int | None
) -> tuple[comparing.Verdict, dict[str, list[str]]]:
    """Compare with the live version; with the verdict, the events of the users that differ."""
    async with readers_of(deployment) as shards, _read(deployment) as connection:
        chosen = version or (await work.replay_of(connection, name)).version
        live = await _live(connection, name)
        verdict = await comparing.verify(connection, _projection(name), live, chosen)
        if verdict.equal:
            await comparing.mark_verified(connection, name, chosen)
        users = {found.user_id for found in verdict.differences if found.user_id is not None}
        events: dict[str, list[str]] = {}
        for user_id in sorted(users)[:EXPLAINED_MAX]:
            history = await shards.read(
                bucket_of(user_id),
                lambda reader, user_id=user_id: read_stream(reader, user_id, limit=100),  # type: ignore[misc]
            )
            events[str(user_id)] = [f"{each.version} {each.type} {each.recorded_at.isoformat()}" for each in history]
        return verdict, events


async def promote(deployment: Deployment, name: str, version: int | None, *, unverified: bool) -> int:
    """Make a version live."""
    async with _read(deployment) as connection:
        replay = await work.replay_of(connection, name, version)
        if replay.verified_at is None and not unverified:
            raise BadDeployment(
                f"version {replay.version} of {name} was not verified: `denizen replay verify {name}` first"
            )
        await steps.promote(connection, _projection(name), replay.version)
        return replay.version


async def rollback(deployment: Deployment, name: str) -> int:
    """Make the version before live again."""
    async with _read(deployment) as connection:
        return await steps.rollback(connection, _projection(name))


async def _live(connection: asyncpg.Connection, name: str) -> int:
    live = [each for each in await registry.versions(connection) if each.projection == name and each.live]
    if not live:
        raise BadDeployment(f"{name} has no live version: the projector has not run yet")
    return live[0].version


def _workers(asked: int | None) -> int:
    return max(1, min(asked or os.cpu_count() or 1, limits.replay_workers_max))
