"""`denizen up` and its companions on a running deployment: what they show, what they refuse, what they keep."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request

import asyncpg

from denizen.sharding.bucket_map import read_map
from denizen.testing.deployment import RunningDeployment
from denizen.testing.postgres import run_blocking
from deployment.processes import denizen, wait_for


async def value(running: RunningDeployment, shard: str, sql: str) -> object:
    connection = await asyncpg.connect(**running.deployment.shards[shard].connect_args)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def status(running: RunningDeployment) -> dict:
    return json.loads(denizen("status", "--json", "--data", running.data).stdout)


def test_the_first_start_shows_an_admin_key_that_opens_the_api(running: RunningDeployment) -> None:
    assert running.admin_key.startswith("dk_")
    request = urllib.request.Request(  # noqa: S310  our own server
        f"{running.url}/v1/users",
        data=json.dumps({"email": "ada@example.org"}).encode(),
        headers={"Authorization": f"Bearer {running.admin_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        assert response.status == 201
        assert json.load(response)["email"] == "ada@example.org"


async def test_every_bucket_is_open_on_the_shard_that_the_map_names(running: RunningDeployment) -> None:
    bucket_map = read_map(running.deployment.map_path)
    for shard in bucket_map.shards:
        query = "SELECT array_agg(bucket::int ORDER BY bucket) FROM denizen.buckets WHERE state = 'open' AND epoch = 1"
        assert await value(running, shard, query) == bucket_map.buckets_of(shard)


def test_status_asks_every_part(running: RunningDeployment) -> None:
    found = status(running)
    assert found["state"] == "running"
    assert found["pid"] == running.up.process.pid
    assert [shard["state"] for shard in found["shards"]] == ["up", "up"]
    assert sum(shard["buckets"] for shard in found["shards"]) == 4096
    assert found["gateway"]["url"] == running.url
    text = denizen("status", "--data", running.data).stdout
    assert re.search(r"Denizen is running .*pid \d+", text)
    assert re.search(r"s2 +up +2048", text)


def test_a_second_up_refuses_and_names_the_first(running: RunningDeployment) -> None:
    second = denizen("up", "--data", running.data)
    assert second.returncode == 1
    assert f"runs already (pid {running.up.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert status(running)["state"] == "running"


def test_another_number_of_shards_is_refused(running: RunningDeployment) -> None:
    refused = denizen("up", "--data", running.data, "--shards", 3)
    assert refused.returncode == 1
    assert "deployment.shards = 3" in refused.stderr
    assert "has 2 servers" in refused.stderr


def test_secrets_are_for_their_owner_only_and_the_key_is_stored_nowhere(running: RunningDeployment) -> None:
    for path in (
        running.deployment.password_path,
        running.data / "deployment.json",
        *running.deployment.logs.iterdir(),
    ):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path
    secret = running.admin_key.rpartition("_")[2]
    for path in [*running.deployment.logs.iterdir(), running.data / "deployment.json", running.deployment.state_path]:
        assert secret not in path.read_text(), path


def test_logs_show_each_source_and_refuse_an_unknown_one(running: RunningDeployment) -> None:
    everything = denizen("logs", "--data", running.data, "--lines", 500).stdout
    assert re.search(r"denizen +│", everything)
    assert re.search(r"s1 +│ .*ready to accept connections", everything)
    assert "s2" not in denizen("logs", "s1", "--data", running.data).stdout
    lines = denizen("logs", "s2", "--data", running.data, "--json", "-n", 2).stdout.splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["s2", "s2"]
    unknown = denizen("logs", "s9", "--data", running.data)
    assert (unknown.returncode, "there are: denizen, gateway, nats, relay" in unknown.stderr) == (1, True)


def test_a_killed_server_is_started_again_with_its_data(running: RunningDeployment) -> None:
    before = status(running)["shards"][1]
    run_blocking(value(running, "s2", "CREATE TABLE kept AS SELECT 7 AS a"))
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: "s2 runs again" in running.up.notes())
    after = status(running)["shards"][1]
    assert (after["port"], after["restarts"]) == (before["port"], before["restarts"] + 1)
    assert after["pid"] != before["pid"]
    assert run_blocking(value(running, "s2", "SELECT a FROM kept")) == 7
    assert any("s2 ended unexpectedly (killed by signal 9)" in note for note in running.up.notes())


def test_a_killed_gateway_is_started_again_at_the_same_address(running: RunningDeployment) -> None:
    before = status(running)["gateway"]
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: "gateway runs again" in running.up.notes())
    after = status(running)["gateway"]
    assert (after["state"], after["url"], after["restarts"]) == ("up", before["url"], before["restarts"] + 1)


def test_one_more_gateway_says_at_which_port_it_was_found(running: RunningDeployment) -> None:
    command = [sys.executable, "-P", "-m", "denizen", "gateway", "--data", str(running.data), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as gateway:
        assert gateway.stderr is not None
        said = (json.loads(line) for line in gateway.stderr)
        address = next(line["address"] for line in said if line["event"] == "gateway_ready")
        with urllib.request.urlopen(f"http://{address}/health/live") as response:
            assert response.status == 200
        gateway.terminate()


async def test_servers_run_durably(running: RunningDeployment) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
        assert await value(running, "s1", f"SHOW {setting}") == "on"
