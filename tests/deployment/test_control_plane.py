"""The control plane's processes lost in every way: the data plane serves on, and what was decided stays decided."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from denizen.api.operations import SettingsChanges
from denizen.control.client import ControlClient
from denizen.control.map_source import ControlMapSource
from denizen.control.wire import client_token
from denizen.deployment.control_access import client_of
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError, Unavailable
from denizen.service.context import Context
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import initial_map, read_map
from denizen.sharding.ids import ShardId
from denizen.testing.deployment import RunningDeployment, UpProcess, throwaway_deployment, write_configuration
from denizen.testing.postgres import reachable_directory
from denizen.users.commands import UserPatch
from denizen.users.login_names import LoginNameKind
from deployment.http import Api, bucket_of_user, move, state_of, wait_state, with_desk
from deployment.processes import denizen, wait_for

THREE = '[postgres]\nmemory = "512MB"\n[control]\nvoters = 3\n'


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=2, configuration=THREE) as deployment:
        with_desk(deployment, lambda desk: desk.change_settings(SettingsChanges(grace_s=1)))
        yield deployment


def leader(running: RunningDeployment) -> int | None:
    """The voter that leads, if one does."""
    statuses = asyncio.run(client_of(running.deployment).status())
    return next((status.id for status in statuses if status.role == "leader"), None)


def whole(running: RunningDeployment) -> bool:
    """Whether all voters run and know one leader."""
    statuses = asyncio.run(client_of(running.deployment).status())
    return (
        len(statuses) == 3
        and len({status.leader for status in statuses} | {None}) == 2
        and all(status.leader for status in statuses)
    )


def pid(running: RunningDeployment, node: int) -> int:
    found = running.deployment.state().control[str(node)].pid
    assert found is not None
    return found


def elsewhere(running: RunningDeployment, bucket: int) -> str:
    """The shard that does not have this bucket."""
    state = state_of(running)
    assert state.map is not None
    return next(
        str(shard) for shard in state.map.shards if shard != state.map.owners and shard != owner(running, bucket)
    )


def owner(running: RunningDeployment, bucket: int) -> str:
    state = state_of(running)
    assert state.map is not None
    return str(state.map.shards[state.map.owners[bucket]])


def test_the_control_plane_knows_where_its_voters_listen(running: RunningDeployment) -> None:
    here = {int(node): f"127.0.0.1:{process.port}" for node, process in running.deployment.state().control.items()}
    wait_for(lambda: {id: node.address for id, node in state_of(running).nodes.items()} == here)


def test_the_first_start_founds_it_and_status_shows_every_voter(running: RunningDeployment) -> None:
    wait_for(lambda: whole(running))
    state = state_of(running)
    assert state.deployment == running.deployment.id
    assert set(state.shards) == {"s1", "s2"}
    shown = denizen("status", "--data", running.data).stdout
    assert len(re.findall(r"Control \d up", shown)) == 3
    assert len(re.findall("leader of term", shown)) == 1
    for node in (1, 2, 3):
        assert (running.data / "logs" / f"control-{node}.log").exists()
    assert oct((running.data / "secrets" / "control-secret").stat().st_mode)[-3:] == "600"


def test_a_killed_leader_is_replaced_started_again_and_moves_go_on(running: RunningDeployment) -> None:
    wait_for(lambda: whole(running))
    api = Api(running)
    user = api.register("leader@example.com")
    lost = leader(running)
    assert lost is not None
    before = pid(running, lost)
    os.kill(before, signal.SIGKILL)
    assert api.rename(user["id"], "Meanwhile")["display_name"] == "Meanwhile"
    bucket = bucket_of_user(user)
    to = elsewhere(running, bucket)
    move(running, [bucket], to)
    assert api.user(user["id"])["display_name"] == "Meanwhile"
    wait_for(lambda: running.deployment.state().control[str(lost)].pid not in (None, before))
    wait_for(lambda: whole(running))
    assert running.deployment.state().control[str(lost)].restarts == 1


def test_the_data_plane_serves_on_without_a_majority(running: RunningDeployment) -> None:
    wait_for(lambda: whole(running))
    api = Api(running)
    stopped = [pid(running, node) for node in (1, 2)]
    for each in stopped:
        os.kill(each, signal.SIGSTOP)
    try:
        user = api.register("minority@example.com")
        assert api.rename(user["id"], "Served")["display_name"] == "Served"
        assert api.user(user["id"])["display_name"] == "Served"
        client = client_of(running.deployment, patience_s=0.5)
        with pytest.raises(Unavailable):
            asyncio.run(client.state(linearizable=True))
        others = denizen(
            "users",
            "find",
            "email",
            "minority@example.com",
            "--data",
            running.data,
            DENIZEN_URL=running.url,
            DENIZEN_KEY=running.admin_key,
        )
        assert others.returncode == 0, others.stderr
    finally:
        for each in stopped:
            os.kill(each, signal.SIGCONT)
    wait_for(lambda: whole(running), 60)
    bucket = bucket_of_user(user)
    move(running, [bucket], elsewhere(running, bucket))
    assert Api(running).user(user["id"])["display_name"] == "Served"


def test_all_voters_killed_at_once_come_back_with_everything(running: RunningDeployment) -> None:
    wait_for(lambda: whole(running))
    api = Api(running)
    user = api.register("all@example.com")
    bucket = bucket_of_user(user)
    to = elsewhere(running, bucket)
    move(running, [bucket], to)
    before = state_of(running)
    for node in (1, 2, 3):
        os.kill(pid(running, node), signal.SIGKILL)
    assert api.rename(user["id"], "Still")["display_name"] == "Still"
    wait_for(lambda: whole(running), 60)
    after = state_of(running)
    assert (after.map, after.shards) == (before.map, before.shards)
    move(running, [bucket], elsewhere(running, bucket))
    assert Api(running).user(user["id"])["display_name"] == "Still"


async def test_a_gateway_cut_off_from_the_control_plane_is_corrected_by_the_shards(
    running: RunningDeployment,
) -> None:
    deployment = running.deployment
    deployment.use_keyring()
    user = await asyncio.to_thread(Api(running).register, "cutoff@example.com")
    bucket = bucket_of_user(user)
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory) / "map.json"
        cache.write_bytes(deployment.map_path.read_bytes())
        nobody = ControlClient(lambda: {1: "127.0.0.1:1"}, lambda: client_token(b"nothing"))
        kinds = frozenset({LoginNameKind.EMAIL, LoginNameKind.USERNAME})
        source = ControlMapSource(nobody, cache)
        async with Gateway(deployment.places, source, deployment.hash_seed, kinds) as cut_off:
            old = cut_off.router.map
            to = await asyncio.to_thread(elsewhere, running, bucket)
            await asyncio.to_thread(move, running, [bucket], to)
            found = await cut_off.users.find(_email("cutoff@example.com"))
            written = await cut_off.users.change(found.id, UserPatch(display_name="Cut Off"), context=Context("test"))
            assert written.user.user.display_name == "Cut Off"
            assert cut_off.router.map.version == old.version
            assert cut_off.router.map.shard_of(bucket) == ShardId(to)
    assert (await asyncio.to_thread(Api(running).user, user["id"]))["display_name"] == "Cut Off"


async def test_a_gateway_with_a_newer_map_than_the_shard_is_refused_and_harms_nothing(
    running: RunningDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denizen.limits.map_lag_s", 0.3)
    deployment = running.deployment
    deployment.use_keyring()
    user = await asyncio.to_thread(Api(running).register, "newer@example.com")
    bucket = bucket_of_user(user)
    newest = (await client_of(deployment).state()).map
    assert newest is not None
    other = next(shard for shard in newest.shards if shard != newest.shard_of(bucket))
    believed = newest.corrected({bucket: (other, newest.epoch_of(bucket) + 2)})

    class Ahead:
        async def current(self):  # type: ignore[no-untyped-def]
            return believed

        async def newer_than(self, version: int):  # type: ignore[no-untyped-def]
            await asyncio.Event().wait()

    kinds = frozenset({LoginNameKind.EMAIL, LoginNameKind.USERNAME})
    async with Gateway(deployment.places, Ahead(), deployment.hash_seed, kinds) as ahead:
        with pytest.raises(DenizenError) as refused:
            await ahead.users.find(_email("newer@example.com"))
        assert refused.value.retryable
    assert (await asyncio.to_thread(Api(running).user, user["id"]))["email"] == "newer@example.com"


def _email(value: str):  # type: ignore[no-untyped-def]
    from denizen.users.login_names import LoginName

    return LoginName(LoginNameKind.EMAIL, value)


def test_the_cache_of_the_map_follows(running: RunningDeployment) -> None:
    def level() -> bool:
        newest = state_of(running).map
        return newest is not None and read_map(running.deployment.map_path) == newest

    wait_for(level)


def test_another_number_of_voters_is_refused(running: RunningDeployment) -> None:
    running.up.stop()
    refused = denizen("up", "--data", running.data, DENIZEN_CONTROL_VOTERS="1")
    assert refused.returncode == 1
    assert "founded with 3 voters" in refused.stderr
    running.start_again()
    wait_for(lambda: whole(running))


def test_a_control_plane_whose_data_are_lost_begins_anew_from_what_the_shards_say(running: RunningDeployment) -> None:
    api = Api(running)
    user = api.register("lost@example.com")
    bucket = bucket_of_user(user)
    move(running, [bucket], elsewhere(running, bucket))
    before = state_of(running)
    assert before.map is not None
    running.up.stop()
    shutil.rmtree(running.data / "control")
    running.deployment.map_path.write_bytes(msgspec.json.encode(initial_map(before.map.shards)))  # an old one at that
    running.start_again()
    wait_state(running, lambda state: state.map is not None)
    after = state_of(running)
    assert after.map is not None
    assert (after.map.shards, after.map.owners, after.map.epochs) == (
        before.map.shards,
        before.map.owners,
        before.map.epochs,
    )
    assert Api(running).user(user["id"])["email"] == "lost@example.com"
    move(running, [bucket], elsewhere(running, bucket))
    assert Api(running).rename(user["id"], "Found")["display_name"] == "Found"


def test_a_deployment_from_before_the_control_plane_is_founded_from_its_map() -> None:
    with reachable_directory() as directory:
        write_configuration(directory)
        without = UpProcess(directory, ["--shards", "2", "--no-gateway"]).wait_ready()
        without.stop()
        deployment = Deployment.load(directory / "data")
        known = read_map(deployment.map_path)
        assert not (directory / "data" / "control").exists()
        up = UpProcess(directory).wait_ready()
        try:
            wait_for(lambda: asyncio.run(client_of(deployment).state()).map == known)
        finally:
            assert up.stop() == 0


def test_a_join_cut_off_by_a_kill_of_the_supervisor_is_finished_by_the_next_start() -> None:
    with throwaway_deployment(shards=1) as running:
        for _ in range(3):  # wherever it was
            with_desk(running, lambda desk: desk.add_shard())
            running.up.kill()
            running.start_again()
        wait_state(running, lambda state: all(shard.status == "active" for shard in state.shards.values()))
        assert running.deployment.shard_ids == ("s1", "s2", "s3", "s4")
        health = denizen("status", "--data", running.data)
        assert health.returncode == 0, health.stdout
