"""Projector and replay as real processes of a real deployment, killed while they work."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from denizen.events.store import connect
from denizen.projections import registry
from denizen.sharding.bucket_map import read_map
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.events import fill_shard

EVENTS = 12_000
_HOLD_THE_LAST = "select from denizen_read.replay_parts order by first desc limit 1 for update"


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=1) as deployment:
        asyncio.run(_fill(deployment))
        yield deployment


async def _fill(running: RunningDeployment) -> None:
    deployment = running.deployment
    deployment.use_keyring()
    bucket_map = read_map(deployment.map_path)
    for shard in deployment.shards.values():
        connection = await connect(shard.connect_args)
        await fill_shard(connection, bucket_map.buckets_of(shard.id), EVENTS)
        await connection.close()


def cli(running: RunningDeployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "denizen", "replay", *arguments, "--data", str(running.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def projections(running: RunningDeployment, *arguments: str) -> Any:
    command = [sys.executable, "-P", "-m", "denizen", "projections", *arguments, "--data", str(running.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def started(running: RunningDeployment, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "denizen", "replay", *arguments, "--data", str(running.data)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


async def applied(running: RunningDeployment, version: int) -> int:
    connection = await asyncpg.connect(**running.deployment.read_connect_args)
    try:
        return sum((await registry.checkpoints(connection, "directory", version)).values())
    finally:
        await connection.close()


async def until_applied(running: RunningDeployment, version: int, events: int) -> None:
    async with asyncio.timeout(90):
        while await applied(running, version) < events:
            await asyncio.sleep(0.1)


async def start_and_kill(running: RunningDeployment) -> None:
    """Begin a replay, and kill it when some parts are done, and one is not: that one is held until then."""
    connection = await asyncpg.connect(**running.deployment.read_connect_args)
    run = started(running, "run", "directory")
    try:
        async with asyncio.timeout(60):
            async with connection.transaction():
                while not await connection.fetch(_HOLD_THE_LAST):
                    await asyncio.sleep(0.005)
                while not await connection.fetchval("select bool_or(done) from denizen_read.replay_parts"):
                    await asyncio.sleep(0.005)
                assert run.poll() is None
                run.kill()
                run.wait()
    finally:
        connection.terminate()


async def test_a_projector_killed_again_and_again_and_a_replay_killed_end_equal(running: RunningDeployment) -> None:
    for _ in range(4):  # wherever it is: its keeper starts it again
        before = await applied(running, 1)
        pid = running.deployment.state().processes["projector"].pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if before < EVENTS:
            await until_applied(running, 1, before + 1)
    shown = projections(running, "--json")
    assert {each["projection"] for each in shown["versions"]} == {"activity", "directory", "statistics"}
    assert shown["parked"] == []
    plan = json.loads(cli(running, "plan", "directory", "--json").stdout)
    assert (plan["version"], plan["events"]) == (2, plan["events"])
    assert plan["events"] >= EVENTS
    await start_and_kill(running)
    done = cli(running, "run", "directory", "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "done"
    await until_applied(running, 1, plan["events"])
    await until_applied(running, 2, plan["events"])
    assert cli(running, "promote", "directory").returncode == 1  # it was not verified
    verified = cli(running, "verify", "directory", "--json")
    assert json.loads(verified.stdout)["equal"], verified
    assert "version 2 is live" in cli(running, "promote", "directory").stdout
    assert "directory version 2: live" in cli(running, "status").stdout
    assert "version 1 is live again" in cli(running, "rollback", "directory").stdout
    assert "version 2 is removed" in cli(running, "cancel", "directory", "--version", "2").stdout
