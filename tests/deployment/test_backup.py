"""What a data directory lost that holds no data is made anew; a backup is a data directory again."""

import json
import shutil
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from denizen.operators.desk import Desk
from denizen.testing.deployment import RunningDeployment, UpProcess
from deployment.http import Api, with_desk
from deployment.processes import denizen

ARGUMENTS = ("--shards", "2")
MADE_ANEW = ("run", "logs", "bus", "control", "read")


@pytest.fixture
def running(directory: Path) -> Iterator[RunningDeployment]:
    """A deployment of the test's own."""
    deployment = RunningDeployment(directory, ARGUMENTS)
    yield deployment
    deployment.up.stop()


def test_a_start_makes_anew_what_holds_no_data(running: RunningDeployment) -> None:
    user = Api(running).register("ada@example.org")
    running.up.stop()
    for name in MADE_ANEW:
        shutil.rmtree(running.data / name)
    running.start_again()
    assert Api(running).user(user["id"])["email"] == "ada@example.org"
    assert denizen("verify", "--data", running.data).returncode == 0


def test_a_backup_is_a_data_directory_with_everything(running: RunningDeployment, directory: Path) -> None:
    api = Api(running)
    users = [api.register(f"user{number}@example.org") for number in range(20)]
    target = directory / "backup"
    told = json.loads(denizen("backup", target, "--json", "--data", running.data).stdout)
    assert told["shards"] == ["s1", "s2"]
    assert told["keyring"]
    api.register("later@example.org")
    running.up.stop()

    restored = directory / "elsewhere"
    restored.mkdir()
    target.rename(restored / "data")
    again = UpProcess(restored).wait_ready()
    assert again.ready["admin_key"] is None
    there = Api(running, again.url)
    assert [there.user(user["id"])["email"] for user in users] == [user["email"] for user in users]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        there.ask("GET", "/v1/login-names/email/later@example.org")
    assert denizen("verify", "--data", again.data).returncode == 0
    again.stop()


def test_without_the_keyring_nobody_can_read_it(running: RunningDeployment, directory: Path) -> None:
    target = directory / "backup"
    assert "keyring" in denizen("backup", target, "--no-keyring", "--data", running.data).stderr
    assert not (target / "secrets" / "keyring.json").exists()
    running.up.stop()
    refused = denizen("up", "--data", target)
    assert refused.returncode == 1
    assert "the keyring" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_backup_that_cannot_be_made_leaves_nothing(running: RunningDeployment, directory: Path) -> None:
    target = directory / "backup"
    target.mkdir()
    assert "exists" in denizen("backup", target, "--data", running.data).stderr
    target.rmdir()
    assert "in the data directory itself" in denizen("backup", running.data / "b", "--data", running.data).stderr
    assert not (running.data / "b").exists()
    running.deployment.password_path.write_text("wrong\n")
    failed = denizen("backup", target, "--data", running.data)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    running.up.stop()
    stopped = denizen("backup", target, "--data", running.data)
    assert "is stopped" in stopped.stderr
    assert [path.name for path in directory.iterdir() if "backup" in path.name] == []


def test_while_buckets_move_there_is_no_backup(running: RunningDeployment, directory: Path) -> None:
    begin_moving(running)
    refused = denizen("backup", directory / "backup", "--data", running.data)
    assert refused.returncode == 1
    assert "buckets are moving" in refused.stderr


def begin_moving(running: RunningDeployment) -> None:
    """Half of the first shard's buckets begin to move."""

    async def begin(desk: Desk) -> None:
        await desk.run(await desk.plan_of_moves(list(range(0, 1000)), "s2"))

    with_desk(running, begin)
