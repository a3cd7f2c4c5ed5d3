"""However a deployment ends, nothing of it goes on, and the next start works on the data."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from denizen.deployment.gateway import stop_leftover_gateway
from denizen.deployment.layout import Deployment
from denizen.deployment.state import GatewayState, RunState, write_state
from denizen.postgres.leftovers import running_postmaster
from denizen.processes.children import command_of
from denizen.testing.deployment import UpProcess
from denizen.testing.postgres import run_blocking
from deployment.processes import denizen, processes_in, wait_for

ONE = ("--shards", "1")
ONE_SHARD_ONLY = (*ONE, "--no-gateway")


async def _do(deployment: Deployment, sql: str) -> object:
    connection = await asyncpg.connect(**deployment.shards[deployment.shard_ids[0]].connect_args)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def do(up: UpProcess, sql: str) -> object:
    return run_blocking(_do(up.deployment, sql))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(directory: Path, number: signal.Signals) -> None:
    up = UpProcess(directory, ONE).wait_ready()
    assert len(processes_in(directory)) > 2
    assert up.stop(number) == 0
    assert processes_in(directory) == []
    done = [event["text"] for event in up.events() if event["kind"] == "done"]
    assert done[-3:] == ["Gateway stopped", "Control plane stopped", "PostgreSQL stopped"]
    assert "database system is shut down" in (up.deployment.logs / "s1.log").read_text()


def test_stopped_in_the_middle_of_the_first_start_the_next_one_finishes_it(directory: Path) -> None:
    up = UpProcess(directory, ONE_SHARD_ONLY)
    wait_for(up.events)
    assert up.stop() == 0
    assert up.ready == {}
    again = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    assert again.ready["admin_key"]
    assert [path.name for path in (up.data / "shards").iterdir()] == ["s1"]
    again.stop()


def test_killed_in_the_middle_of_the_first_start_the_next_one_finishes_it(directory: Path) -> None:
    up = UpProcess(directory, ONE_SHARD_ONLY)
    wait_for(lambda: list((up.data / "shards").glob("s1.new-*/base")))
    up.kill()
    again = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    assert again.ready["admin_key"]
    assert [path.name for path in (up.data / "shards").iterdir()] == ["s1"]
    again.stop()


def test_a_killed_supervisor_takes_everything_along_and_the_next_start_has_the_data(directory: Path) -> None:
    up = UpProcess(directory, ONE).wait_ready()
    do(up, "CREATE TABLE kept AS SELECT 7 AS a")
    up.kill()
    wait_for(lambda: processes_in(directory) == [])
    again = UpProcess(directory).wait_ready()
    assert again.ready["admin_key"] is None
    assert do(again, "SELECT a FROM kept") == 7
    assert again.url == up.url
    again.stop()


def test_everything_killed_at_once_the_next_start_has_the_data(directory: Path) -> None:
    up = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    do(up, "CREATE TABLE kept AS SELECT 7 AS a")
    for pid in [up.process.pid, *processes_in(directory)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # its parent's death ended it first
    up.process.wait()
    again = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    assert do(again, "SELECT a FROM kept") == 7
    again.stop()


def test_a_supervisor_and_server_that_were_frozen_and_lost_are_replaced(directory: Path) -> None:
    """An orphan that the kernel could not end (here: stopped) is ended by the next start."""
    up = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    pid = running_postmaster(up.data / "shards" / "s1")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    up.kill()
    assert running_postmaster(up.data / "shards" / "s1") == pid
    again = UpProcess(directory, ONE_SHARD_ONLY)
    os.kill(pid, signal.SIGCONT)
    again.wait_ready()
    assert running_postmaster(again.data / "shards" / "s1") != pid
    again.stop()


def test_of_two_first_starts_at_once_one_wins_and_the_other_refuses(directory: Path) -> None:
    ups = [UpProcess(directory, ONE_SHARD_ONLY), UpProcess(directory, ONE_SHARD_ONLY)]
    wait_for(lambda: any(up.process.poll() is not None for up in ups), 60)
    loser, winner = sorted(ups, key=lambda up: up.process.poll() is None)
    assert loser.process.poll() == 1
    assert f"runs already (pid {winner.process.pid})" in loser.said()
    winner.wait_ready()
    assert do(winner, "SELECT deployment_id::text FROM denizen.shard") == winner.ready["deployment"]
    assert winner.stop() == 0


def test_a_leftover_gateway_is_stopped_and_a_stranger_with_its_pid_is_not(directory: Path) -> None:
    deployment = Deployment.create(directory / "data", shards=1)
    idle = [sys.executable, "-c", "import time; time.sleep(60)", "denizen", "gateway", "--data"]
    with subprocess.Popen([*idle, str(deployment.directory), "--listen"]) as ours, subprocess.Popen(idle) as stranger:
        for process, stopped in ((stranger, None), (ours, ours.pid)):
            gateway = GatewayState(host="127.0.0.1", port=1, pid=process.pid)
            write_state(deployment.state_path, RunState(gateway=gateway))
            wait_for(lambda process=process: "gateway" in command_of(process.pid))
            assert stop_leftover_gateway(deployment) == stopped
        assert stranger.poll() is None
        assert ours.wait() == -signal.SIGTERM
        stranger.terminate()


def test_detached_it_goes_on_until_down(directory: Path) -> None:
    data = directory / "data"
    up = denizen("up", "--detach", "--data", data, "--shards", 1)
    assert up.returncode == 0, up.stderr
    assert "Admin key, shown only now: dk_" in up.stdout
    assert f"export DENIZEN_DATA={data}" in up.stdout
    assert denizen("status", "--data", data).returncode == 0
    down = denizen("down", "--data", data)
    assert (down.returncode, "stopped" in down.stdout) == (0, True)
    wait_for(lambda: processes_in(directory) == [])
    stopped = denizen("status", "--data", data)
    assert (stopped.returncode, "Denizen is stopped" in stopped.stdout) == (1, True)
    assert "s1: not running" in stopped.stdout
    assert "is not running" in denizen("down", "--data", data).stdout
    log = (data / "logs" / "denizen.log").read_text()
    assert "dk_" not in log
    assert "Traceback" not in log


def test_detached_a_failed_start_says_why(directory: Path) -> None:
    up = denizen("up", "--detach", "--data", directory / "data", "--listen", "192.0.2.1:80", "--shards", 1)
    assert up.returncode == 1
    assert "gateway.listen: 192.0.2.1:80 is in use (or not an address of this machine)" in up.stderr


def test_detached_and_stopped_before_it_is_ready_it_says_just_that(directory: Path) -> None:
    data = directory / "data"
    command = [sys.executable, "-P", "-m", "denizen", "up", "--detach", "--data", str(data), "--shards", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        wait_for(lambda: "made" in log.read_text() if (log := data / "logs" / "denizen.log").exists() else False)
        denizen("down", "--data", data)
        _, said = up.communicate()
    assert (up.returncode, said) == (1, "denizen: stopped before it was ready\n")


def test_lost_data_are_said_and_never_made_anew(directory: Path) -> None:
    up = UpProcess(directory, ONE_SHARD_ONLY).wait_ready()
    up.stop()
    shutil.rmtree(up.data / "shards" / "s1")
    again = denizen("up", "--data", up.data, "--no-gateway")
    assert again.returncode == 1
    assert "the data of shard s1 are gone" in again.stderr
    assert processes_in(directory) == []
