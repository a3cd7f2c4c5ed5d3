"""Shards that join and leave while everything runs: no process is restarted, nothing is lost, keys stay."""

import asyncio
import json
import os
import re
import shutil
import signal
import urllib.error
from collections.abc import Iterator
from contextlib import suppress

import asyncpg
import pytest
from msgspec.structs import replace

from denizen.api.operations import SettingsChanges
from denizen.cli.shards import problem_of
from denizen.control.commands import AddShard
from denizen.control.state import ShardStatus
from denizen.deployment.layout import Deployment
from denizen.operators.desk import now_ms
from denizen.sharding.bucket_map import initial_map, write_map
from denizen.sharding.ids import ShardId
from denizen.testing.deployment import RunningDeployment, write_configuration
from denizen.testing.postgres import ThrowawayServer, reachable_directory, throwaway_server
from deployment.http import Api, bucket_of_user, move, state_of, wait_state, with_desk
from deployment.processes import denizen, wait_for

S3 = ShardId("s3")


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    """A deployment whose first shard has a few buckets only, so that it is quickly drained."""
    with reachable_directory() as directory:
        write_configuration(directory)
        deployment = Deployment.create(directory / "data", shards=2)
        few = initial_map(deployment.shard_ids)
        owners = tuple(0 if bucket % 256 == 0 else 1 for bucket in range(len(few.owners)))
        write_map(deployment.map_path, replace(few, owners=owners))
        running = RunningDeployment(directory, ["--shards", "2"])
        try:
            with_desk(running, lambda desk: desk.change_settings(SettingsChanges(grace_s=1)))
            yield running
        finally:
            running.up.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[ThrowawayServer]:
    with throwaway_server() as found:
        yield found


def join(running: RunningDeployment, dsn: str | None = None) -> str:
    name = with_desk(running, lambda desk: desk.add_shard(dsn)).id
    wait_state(running, lambda state: state.shards[ShardId(name)].status is ShardStatus.ACTIVE)
    return name


def third(running: RunningDeployment) -> str:
    """A shard that was not there at the start; it joins with the first test that needs it."""
    return "s3" if S3 in state_of(running).shards else join(running)


def pids(running: RunningDeployment) -> dict[str, int | None]:
    state = running.deployment.state()
    assert state.gateway is not None
    return {"gateway": state.gateway.pid} | {name: process.pid for name, process in state.processes.items()}


def test_a_shard_joins_and_takes_users_without_any_restart(running: RunningDeployment) -> None:
    before = pids(running)
    api = Api(running)
    users = [api.register(f"u{number}@example.com") for number in range(12)]
    name = join(running)
    move(running, [bucket_of_user(user) for user in users], name)
    for number, user in enumerate(users):
        assert api.user(user["id"])["email"] == f"u{number}@example.com"
        assert api.rename(user["id"], f"U {number}")["display_name"] == f"U {number}"
    assert pids(running) == before
    assert running.deployment.state().shards[name].restarts == 0
    health = json.loads(denizen("status", "--json", "--data", running.data).stdout)
    assert name in [shard["id"] for shard in health["shards"]]
    assert health["state"] == "running"


def test_the_read_side_follows_a_bucket_to_a_shard_that_it_did_not_know(running: RunningDeployment) -> None:
    api = Api(running)
    user = api.register("followed@example.com")
    name = third(running)
    move(running, [bucket_of_user(user)], name)
    api.rename(user["id"], "Followed Everywhere")

    def found() -> bool:
        with suppress(urllib.error.HTTPError):  # 503 while a search cannot be answered yet
            return user["id"] in json.dumps(api.ask("GET", "/v1/users?name=followed%20everywhere"))
        return False

    wait_for(found, 30)
    log = (running.data / "logs" / "relay.log").read_text()
    assert any(f'"{name}"' in line for line in log.splitlines() if "relays_started" in line)


def test_bulk_work_sees_the_new_shard(running: RunningDeployment) -> None:
    user = Api(running).register("bulk@example.com")
    move(running, [bucket_of_user(user)], third(running))
    verified = denizen("verify", "--data", running.data, "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    exported = denizen("export", running.directory / "all.ndjson", "--data", running.data)
    assert exported.returncode == 0, exported.stderr
    assert "bulk@example.com" in (running.directory / "all.ndjson").read_text()


def test_a_killed_supervisor_starts_again_with_all_shards(running: RunningDeployment) -> None:
    third(running)
    before = running.deployment.shard_ids
    running.up.kill()
    running.start_again()
    assert Api(running).works()
    assert running.deployment.shard_ids == before
    wait_state(running, lambda state: state.shards[S3].status is ShardStatus.ACTIVE)


def test_a_database_given_by_its_dsn_is_prepared_and_joins(running: RunningDeployment, server: ThrowawayServer) -> None:
    database = server.create_database(template="template1")
    name = join(running, database.dsn)
    user = Api(running).register("far@example.com")
    move(running, [bucket_of_user(user)], name)
    assert Api(running).user(user["id"])["email"] == "far@example.com"

    async def there() -> bool:
        connection = await asyncpg.connect(**database.connect_args)
        try:
            return bool(await connection.fetchval("select count(*) = 1 from denizen.users where status = 1"))
        finally:
            await connection.close()

    assert asyncio.run(there())


@pytest.mark.parametrize("dsn", ["foo", "postgresql://me:secret@127.0.0.1:1/nodb"])
def test_a_database_that_cannot_be_reached_is_refused_and_not_recorded(running: RunningDeployment, dsn: str) -> None:
    before = set(state_of(running).shards)
    refused = denizen("shards", "add", "--dsn", dsn, "--data", running.data)
    assert refused.returncode == 1
    assert ("postgresql://user:password@host:port/database" if dsn == "foo" else "127.0.0.1:1/nodb") in refused.stderr
    assert not {"secret", "Traceback"} & set(re.findall(r"\w+", refused.stderr))
    with pytest.raises(urllib.error.HTTPError) as error:
        Api(running).ask("POST", "/v1/shards", {"dsn": dsn})
    with error.value as refusal:
        assert refusal.code == (422 if dsn == "foo" else 409)
    assert set(state_of(running).shards) == before


def test_a_shard_that_cannot_join_hinders_nobody_and_can_be_given_up(running: RunningDeployment) -> None:
    third(running)
    number = len(state_of(running).shards) + 1
    hopeless = ShardId(f"s{number}")  # its server was there when it was asked for
    dsn = "postgresql://me:secret@127.0.0.1:1/nodb"
    with_desk(running, lambda desk: desk.control.propose(AddShard(shard=hopeless, dsn=dsn, at_ms=now_ms())))
    wait_for(lambda: hopeless in running.deployment.shard_ids)
    wait_for(lambda: problem_of(running.data / "logs" / "denizen.log", hopeless))
    listed = denizen("keyring", "list", "--data", running.data)
    assert listed.returncode == 0, listed.stderr
    running.up.stop()
    running.start_again()
    assert Api(running).works()
    removed = denizen("shards", "remove", hopeless, "--data", running.data)
    assert removed.returncode == 0, removed.stderr
    wait_for(lambda: hopeless not in running.deployment.shard_ids)
    assert "secret" not in (running.data / "logs" / "denizen.log").read_text()


def test_a_server_of_ours_that_cannot_be_made_stops_no_start_and_joins_when_it_can(running: RunningDeployment) -> None:
    third(running)
    name = f"s{len(state_of(running).shards) + 1}"
    hindrance = running.data / "shards" / name
    hindrance.write_text("not a directory")
    assert with_desk(running, lambda desk: desk.add_shard()).id == name
    wait_for(lambda: problem_of(running.data / "logs" / "denizen.log", name))
    running.up.stop()
    running.start_again()
    assert Api(running).works()
    assert state_of(running).shards[ShardId(name)].status is ShardStatus.JOINING
    saved = denizen("backup", running.directory / "saved", "--data", running.data)
    assert saved.returncode == 0, saved.stderr
    hindrance.unlink()
    wait_state(running, lambda state: state.shards[ShardId(name)].status is ShardStatus.ACTIVE)


def test_a_database_that_is_a_shard_already_is_refused_at_once(running: RunningDeployment) -> None:
    server, before = running.deployment.state().shards["s2"], set(state_of(running).shards)
    dsn = f"postgresql://denizen:{running.deployment.password()}@127.0.0.1:{server.port}/denizen"
    refused = denizen("shards", "add", "--dsn", dsn, "--data", running.data)
    assert (refused.returncode, "is a shard already" in refused.stderr) == (1, True), refused.stderr
    assert running.deployment.password() not in refused.stderr
    assert set(state_of(running).shards) == before


def test_a_shard_whose_server_is_gone_for_good_is_given_up_by_an_operators_word(running: RunningDeployment) -> None:
    lost, owner = join(running), third(running)
    user = Api(running).register("kept@example.com")
    move(running, [bucket_of_user(user)], owner)
    server = running.deployment.state().shards[lost].pid
    assert server is not None
    (running.data / "shards" / lost).rename(running.directory / "taken-away")
    os.kill(server, signal.SIGKILL)
    refused = denizen("shards", "remove", lost, "--data", running.data)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
    owning = denizen("shards", "remove", owner, "--lost", "--data", running.data)
    assert (owning.returncode, "own" in owning.stderr) == (1, True), owning.stderr

    given_up = denizen("shards", "remove", lost, "--lost", "--data", running.data)
    assert given_up.returncode == 0, given_up.stderr
    wait_for(lambda: lost not in running.deployment.shard_ids, 60)
    move(running, [bucket_of_user(user)], "s2")
    assert Api(running).user(user["id"])["email"] == "kept@example.com"
    health = json.loads(denizen("status", "--json", "--data", running.data).stdout)
    assert (health["state"], lost in [shard["id"] for shard in health["shards"]]) == ("running", False)
    verified = denizen("verify", "--data", running.data)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_drained_shard_leaves_even_the_first_one_and_the_keys_stay(running: RunningDeployment) -> None:
    api = Api(running)
    users = [api.register(f"d{number}@example.com") for number in range(6)]
    state = state_of(running)
    assert state.map is not None
    data = running.data / "shards" / "s1"

    with_desk(running, lambda desk: desk.drain("s1"))
    move(running, [int(bucket) for bucket in state.map.buckets_of(ShardId("s1"))], "s2")
    wait_for(lambda: "s1" not in running.deployment.shard_ids, 60)
    assert (data / "PG_VERSION").exists()
    assert not (data / "postmaster.pid").exists()
    assert "s1" not in running.deployment.state().shards
    assert [api.user(user["id"])["email"] for user in users] == [f"d{number}@example.com" for number in range(6)]
    assert api.register("after@example.com")["email"] == "after@example.com"
    running.up.stop()
    running.start_again()
    assert Api(running).works()
    assert not os.path.exists(data / "postmaster.pid")


def test_a_control_plane_made_anew_uses_no_name_of_a_removed_shard_again(running: RunningDeployment) -> None:
    lost = join(running)
    with_desk(running, lambda desk: desk.drain(lost))
    wait_for(lambda: lost not in running.deployment.shard_ids, 60)
    running.up.stop()
    shutil.rmtree(running.data / "control")
    running.start_again()
    wait_state(running, lambda state: state.map is not None)
    assert state_of(running).shards[ShardId(lost)].status is ShardStatus.REMOVED
    added = denizen("shards", "add", "--no-rebalance", "--json", "--data", running.data)
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["id"] == f"s{int(lost[1:]) + 1}"
