"""Projector and replay as real processes of a real deployment, killed while they work."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from denizen.events.store import connect
from denizen.projections import registry
from denizen.projections.statistics import STATISTICS
from denizen.sharding.bucket_map import read_map
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.events import fill_shard

EVENTS = 12_000
_STATE = "select state from denizen_read.replays where projection = 'statistics' and version = 2"
_DROPS = "select exists (select from pg_locks where not granted and mode = 'AccessExclusiveLock')"
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


def started(running: RunningDeployment, *arguments: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "denizen", "replay", *arguments, "--data", str(running.data)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)


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
    rolled_back = cli(running, "rollback", "directory", "--json").stdout
    assert json.loads(rolled_back) == {"projection": "directory", "live": 1}
    assert "version 2 is removed" in cli(running, "cancel", "directory", "--version", "2").stdout


async def test_a_run_that_is_cancelled_while_it_makes_indexes_says_so(running: RunningDeployment) -> None:
    connection = await asyncpg.connect(**running.deployment.read_connect_args)
    run = started(running, "run", "statistics", stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(60), connection.transaction():
            while not await connection.fetchval(_STATE):
                await asyncio.sleep(0.005)
            tables = ", ".join(f"denizen_read.{table.at(2)}" for table in STATISTICS.tables)
            await connection.execute(f"lock table {tables} in row exclusive mode")  # no index is made until the end
            while await connection.fetchval(_STATE) != "indexing":
                await asyncio.sleep(0.01)
            cancelling = started(running, "cancel", "statistics")
            while not await connection.fetchval(_DROPS):
                await asyncio.sleep(0.01)
        _, said = await asyncio.to_thread(run.communicate, timeout=60)
        assert await asyncio.to_thread(cancelling.wait, 60) == 0
    finally:
        run.kill()
        run.communicate()
        await connection.close()
    assert (run.returncode, said) == (1, b"denizen: version 2 of statistics was cancelled\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "cancel", "directory", "--version", "-3"), "--version"),
        (("replay", "verify", "directory", "--version", "99999999999999999999"), "--version"),
        (("replay", "plan", "directory", "--workers", "0"), "--workers"),
        (("replay", "run", "directory", "--workers", "99"), "--workers"),
        (("projections", "pause", "nope"), "there is no projection nope; there are activity, directory, statistics"),
        (("projections", "resume", "directory"), "directory has no version that could be resumed"),
        (("projections", "retry", "directory", str(UUID(int=0))), "has not parked this user's stream"),
    ],
)
def test_what_cannot_be_is_said(running: RunningDeployment, arguments: tuple[str, ...], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(running.data)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_deployment_that_is_stopped_is_said(running: RunningDeployment) -> None:
    running.up.stop()
    for arguments in (("projections",), ("projections", "pause", "directory"), ("replay", "status")):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(running.data)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "does not answer" in done.stderr
        assert "`denizen up`" in done.stderr
        assert "Traceback" not in done.stderr
