"""Replays over HTTP, as an operator has them: planned, run in a process of its own, compared, promoted, rolled back."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from denizen.client import Client
from denizen.sharding.ids import BUCKETS, Bucket
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.events import fill_shard

EVENTS = 8_000
DAMAGE = """
    update denizen_read.directory_v2 set country = 'XX'
    where user_id = (select user_id from denizen_read.directory_v2 limit 1) returning user_id
"""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=1) as deployment:
        asyncio.run(_fill(deployment))
        yield deployment


async def _fill(running: RunningDeployment) -> None:
    running.deployment.use_keyring()
    (shard,) = running.deployment.shards.values()
    connection = await asyncpg.connect(**shard.connect_args)
    await fill_shard(connection, [Bucket(bucket) for bucket in range(BUCKETS)], EVENTS)
    await connection.close()


class Http:
    """Requests with the admin key."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, method: str, path: str, body: Any = None, expected: int = 200) -> Any:
        async with self._session.request(method, path, json=body) as reply:
            document = None if reply.status == 204 else await reply.json(content_type=None)
            assert reply.status == expected, document
            return document


@pytest.fixture
async def http(running: RunningDeployment) -> AsyncIterator[Http]:
    headers = {"Authorization": f"Bearer {running.admin_key}"}
    async with aiohttp.ClientSession(running.url, headers=headers) as session:
        yield Http(session)


async def replay_when(http: Http, state: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            (replay,) = (await http("GET", "/v1/replays"))["items"]
            if replay["state"] == state:
                return replay
            await asyncio.sleep(0.05)


async def until_level(http: Http) -> None:
    async with asyncio.timeout(60):
        while True:
            versions = (await http("GET", "/v1/projections"))["versions"]
            if versions and all(each["lag_events"] == 0 for each in versions):
                return
            await asyncio.sleep(0.1)


async def test_a_replay_over_http_from_plan_to_rollback(running: RunningDeployment, http: Http) -> None:
    await until_level(http)
    plan = await http("GET", "/v1/replays/directory:plan?workers=2")
    assert (plan["version"], plan["workers"], plan["events"] >= EVENTS) == (2, 2, True)
    await http("POST", "/v1/replays/directory:resume", expected=409)
    await http("POST", "/v1/replays/nothing:run", expected=404)

    begun = await http("POST", "/v1/replays/directory:run", {"workers": 1}, expected=202)
    assert begun["version"] == 2
    if begun["state"] != "done":
        again = await http("POST", "/v1/replays/directory:run", expected=409)
        assert (again["code"], "runs already" in again["detail"]) == ("replay_refused", True)
    done = await replay_when(http, "done")
    assert (done["progress"], done["events_done"] >= EVENTS, done["events_per_s"] > 0) == (1.0, True, True)

    early = await http("POST", "/v1/replays/directory:promote", expected=409)
    assert "not verified" in early["detail"]
    await until_level(http)
    compared = await http("POST", "/v1/replays/directory:verify")
    assert (compared["equal"], compared["version"], compared["live_version"]) == (True, 2, 1)
    assert (await http("POST", "/v1/replays/directory:promote"))["version"] == 2
    async with Client(running.url, running.admin_key) as client:
        assert await client.replays.roll_back("directory") == 1
    refused = await http("POST", "/v1/replays/directory:cancel", {"version": 1}, expected=409)
    assert "live" in refused["detail"]
    for act in ("verify", "cancel"):
        missing = await http("POST", f"/v1/replays/directory:{act}", {"version": 99}, expected=409)
        assert (missing["code"], missing["detail"]) == ("replay_refused", "directory has no version 99")

    connection = await asyncpg.connect(**running.deployment.read_connect_args)
    user = await connection.fetchval(DAMAGE)
    await connection.close()
    different = await http("POST", "/v1/replays/directory:verify", {"version": 2})
    assert [row["user_id"] for row in different["differences"]] == [str(user)]
    assert different["events"][str(user)][0]["type"] == "UserRegistered"
    await http("POST", "/v1/replays/directory:promote", expected=409)  # what was found before counts no more
    explained = await http("GET", f"/v1/users/{user}/explain")
    assert (explained["version"], explained["agrees"]) == (1, True)
    assert (await http("POST", "/v1/replays/directory:cancel", {"version": 2}))["version"] == 2


async def test_a_replay_that_dies_with_its_gateway_stops_and_goes_on(running: RunningDeployment, http: Http) -> None:
    await until_level(http)
    begun = await http("POST", "/v1/replays/activity:run", {"workers": 1}, expected=202)
    pid = running.deployment.state().gateway.pid  # type: ignore[union-attr]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while True:
            try:
                replays = (await http("GET", "/v1/replays"))["items"]
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
                continue
            if replays and replays[-1]["state"] in ("stopped", "done"):
                break
    if replays[-1]["state"] == "stopped":
        assert (await http("POST", "/v1/replays/activity:resume", expected=202))["version"] == begun["version"]
    await replay_when(http, "done")
    await until_level(http)
    assert (await http("POST", "/v1/replays/activity:verify"))["equal"]
    await http("POST", "/v1/replays/activity:cancel")


async def test_a_read_model_is_paused_and_resumed_over_http(http: Http) -> None:
    await until_level(http)
    await http("POST", "/v1/projections/statistics:pause", expected=204)
    states = {each["projection"]: each["state"] for each in (await http("GET", "/v1/projections"))["versions"]}
    assert states["statistics"] == "paused"
    await http("POST", "/v1/projections/statistics:resume", expected=204)
    await http("POST", "/v1/projections/statistics:resume", expected=409)
    nobody = "01890a5d-ac96-8b2f-8d0a-3c1f2e4d5b6a"
    await http("POST", f"/v1/projections/directory/parked/{nobody}:skip", expected=409)


async def test_the_command_line_searches_explains_and_follows(running: RunningDeployment, http: Http) -> None:
    made = await http("POST", "/v1/users", {"email": "ann@example.org", "display_name": "Zebulon Quirk"}, expected=201)
    await until_level(http)
    assert not (await http("GET", f"/v1/users?name=zebulon&position={made['position']}"))["stale"]
    environment = {**os.environ, "DENIZEN_URL": running.url, "DENIZEN_KEY": running.admin_key}

    def denizen(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "denizen", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    assert made["id"] in denizen("users", "search", "--name", "zebu quirk", "--json").stdout
    explained = denizen("users", "explain", made["id"])
    assert (explained.returncode, "rows and events agree" in explained.stdout) == (0, True), explained
    followed = denizen("changes", "--start", "beginning", "--types", "UserRegistered")
    assert made["id"] in followed.stdout, followed.stderr
    assert followed.stdout.count("UserRegistered") > EVENTS / 10
