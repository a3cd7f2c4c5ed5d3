"""Replays of a deployment's read models as processes: a run, and the workers that it starts.

A run is the process of `denizen replay run`, whoever started it: a person, or a gateway that was asked over HTTP. It
holds the lock of its projection for as long as it works, so a second one is refused; it is killed without harm, and
the next one goes on.
"""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from denizen import limits
from denizen.deployment.layout import Deployment
from denizen.deployment.read_side import readers_of
from denizen.deployment.waiting import until
from denizen.errors import BadDeployment
from denizen.processes.children import open_log, spawn
from denizen.projections.control import Control, ReplayRuns, workers_of
from denizen.projections.replay import run as steps
from denizen.projections.replay import work
from denizen.projections.replay.work import Replay
from denizen.projections.replay.worker import do_parts

PROGRESS_S = 1.0
LOG = "replay.log"


@asynccontextmanager
async def control_of(deployment: Deployment) -> AsyncIterator[Control]:
    """What an operator does with the read models of this deployment."""
    async with readers_of(deployment) as shards:
        yield Control(deployment.read_connect_args, shards)


async def run(
    deployment: Deployment, name: str, workers: int | None, tell: Callable[[Replay], None], *, waiting: bool = False
) -> Replay:
    """Begin or go on; returns when the version is whole, or the replay was paused or failed.

    `waiting`: only go on. `ReplayRuns` if there is a run of this projection already.
    """
    async with control_of(deployment) as control:
        projection = control.projection(name)
        async with control.running(name) as connection:
            if waiting:
                await control.waiting(name)
            begun = await control.begin(connection, name)
            try:
                await _load(deployment, connection, begun, workers_of(workers), tell)
                await steps.finish_loading(deployment.read_connect_args, projection, begun.version)
                replay = await work.replay_of(connection, name, begun.version)
            except (BadDeployment, asyncpg.PostgresError, ExceptionGroup) as error:  # its tables may be gone
                if await work.is_there(connection, name, begun.version):
                    raise
                raise BadDeployment(f"version {begun.version} of {name} was cancelled") from error
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
        with open_log(deployment.logs / LOG) as log:
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
        error = f"a worker ended with code {failed[0]}; see {deployment.logs / LOG}"
        await work.set_state(connection, name, version, "failed", after=("loading",), error=error)


async def worker(deployment: Deployment, name: str, version: int) -> int:
    """What one worker process does."""
    gc.disable()  # what a part leaves behind has no cycles, and a walk through all its events costs a fifth of the time
    async with control_of(deployment) as control, readers_of(deployment) as shards:
        return await do_parts(control.connect_args, control.projection(name), version, shards)


class Runs:
    """Runs started by a process that serves, such as a gateway: each a process of its own, which ends with ours."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._children: list[subprocess.Popen[bytes]] = []

    async def start(self, control: Control, name: str, workers: int | None, *, waiting: bool) -> Replay:
        """Start a run and return the replay it works at. `ReplayRuns` if there is one already."""
        control.projection(name)
        if waiting:
            await control.waiting(name)
        if await control.runs(name):
            raise ReplayRuns(f"a replay of {name} runs already")
        verb = "resume" if waiting else "run"
        command = [sys.executable, "-P", "-m", "denizen", "replay", verb, name, "--json"]
        command += ["--data", str(self._deployment.directory)]
        command += [] if workers is None else ["--workers", str(workers_of(workers))]
        with open_log(self._deployment.logs / LOG) as log:
            where = log.tell()
            child = spawn(command, log=log)
        self._children = [each for each in (*self._children, child) if each.poll() is None]
        return await self._begun(control, name, child, where)

    async def stop(self) -> None:
        """End the runs that are under way; each goes on where it was with the next one."""
        for child in self._children:
            child.terminate()
        for child in self._children:
            if not await until(lambda child=child: child.poll() is not None, limits.bus_stop_s):  # type: ignore[misc]
                child.kill()
                child.wait()

    async def _begun(self, control: Control, name: str, child: "subprocess.Popen[bytes]", where: int) -> Replay:
        """Wait until the run holds its lock and has its replay, or has ended."""
        async with asyncio.timeout(limits.replay_start_s):
            while True:
                ended = child.poll() is not None
                replays, _ = await control.status()
                found = [each for each in replays if each.projection == name]
                if ended and child.returncode not in (0, 1):
                    raise BadDeployment(f"the replay does not start: {self._said(where)}")
                if found and (ended or (found[-1].state in ("loading", "indexing") and await control.runs(name))):
                    return found[-1]
                if ended:
                    raise BadDeployment(f"the replay does not start: {self._said(where)}")
                await asyncio.sleep(limits.replay_start_poll_s)

    def _said(self, where: int) -> str:
        with (self._deployment.logs / LOG).open("rb") as file:
            file.seek(where)
            lines = file.read(65_536).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
