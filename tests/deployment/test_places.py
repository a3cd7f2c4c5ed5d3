"""Where a deployment may live: other people's servers, long paths, closed directories, ordinary users."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

import denizen as package
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.postgres.accounts import choose_account
from denizen.processes.accounts import process_options
from denizen.testing.deployment import UpProcess, write_configuration
from denizen.testing.postgres import Database, ThrowawayServer, reachable_directory, run_blocking
from deployment.processes import denizen, processes_in

SHARDS_ONLY = "--no-gateway"


async def fetch(arguments: dict, sql: str) -> list:
    connection = await asyncpg.connect(**arguments)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def test_shards_given_by_dsn_are_migrated_and_never_stopped(
    directory: Path, postgres_server: ThrowawayServer, empty_database: Database
) -> None:
    other = postgres_server.create_database(template="template0")
    dsns = ["--shard-dsn", empty_database.dsn, "--shard-dsn", other.dsn]
    up = UpProcess(directory, [*dsns, SHARDS_ONLY]).wait_ready()
    assert up.ready["shards"] == ["s1", "s2"]
    up.stop()
    query = "SELECT shard_id, (SELECT count(*) FROM denizen.buckets) FROM denizen.shard"
    assert run_blocking(fetch(empty_database.connect_args, query)) == [("s1", 2048)]
    assert run_blocking(fetch(other.connect_args, query)) == [("s2", 2048)]
    again = UpProcess(directory, [SHARDS_ONLY]).wait_ready()
    again.stop()
    postgres_server.drop_database(other)


def test_a_server_of_our_own_and_one_given_by_dsn_together(directory: Path, empty_database: Database) -> None:
    up = UpProcess(directory, ["--shards", "1", "--shard-dsn", empty_database.dsn, SHARDS_ONLY]).wait_ready()
    assert [shard.managed for shard in up.deployment.shards.values()] == [True, False]
    assert "s2" in denizen("status", "--data", up.data).stdout
    up.stop()


def test_a_database_of_another_deployment_is_refused_unchanged(directory: Path, empty_database: Database) -> None:
    UpProcess(directory, ["--shard-dsn", empty_database.dsn, SHARDS_ONLY]).wait_ready().stop()
    before = run_blocking(fetch(empty_database.connect_args, "SELECT * FROM denizen.shard"))
    with reachable_directory() as elsewhere:
        refused = denizen("up", "--data", elsewhere / "data", "--shard-dsn", empty_database.dsn, SHARDS_ONLY)
    assert refused.returncode == 1
    assert "of deployment" in refused.stderr
    assert run_blocking(fetch(empty_database.connect_args, "SELECT * FROM denizen.shard")) == before


def test_an_emptied_database_is_said_and_never_filled_anew(directory: Path, empty_database: Database) -> None:
    UpProcess(directory, ["--shard-dsn", empty_database.dsn, SHARDS_ONLY]).wait_ready().stop()
    run_blocking(fetch(empty_database.connect_args, "DROP SCHEMA denizen CASCADE"))
    refused = denizen("up", "--data", directory / "data", SHARDS_ONLY)
    assert "shard s1: its database is empty, but this deployment had data there" in refused.stderr


def test_a_dsn_without_a_server_is_named_without_its_password(directory: Path) -> None:
    dsn = "postgresql://me:secret@127.0.0.1:1/people"
    refused = denizen("up", "--data", directory / "data", "--shard-dsn", dsn, SHARDS_ONLY)
    assert refused.returncode == 1
    assert "shard s1: postgresql://me:***@127.0.0.1:1/people does not answer" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_directory_too_deep_for_sockets_works(directory: Path) -> None:
    deep = directory / ("d" * 60) / ("e" * 40)
    deep.mkdir(parents=True)
    deep.chmod(0o711)
    deep.parent.chmod(0o711)
    write_configuration(deep)
    up = UpProcess(deep, ["--shards", "1", SHARDS_ONLY]).wait_ready()
    sockets = Path(up.deployment.state().shards["s1"].socket_directory or "")
    assert len(str(sockets)) < 60
    assert sockets.stat().st_mode & 0o077 == 0
    up.stop()
    assert not sockets.exists()


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(BadDeployment, match=r"holds something else \(letter\.txt\)"):
        Deployment.create(tmp_path, shards=1)


def test_no_deployment_is_said_with_the_way_to_one(tmp_path: Path) -> None:
    for command in ("status", "down", "logs"):
        run = denizen(command, "--data", tmp_path)
        assert (run.returncode, f"no deployment in {tmp_path}" in run.stderr) == (1, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as another user")
def test_as_root_a_closed_data_directory_is_refused_with_advice(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    refused = denizen("up", "--data", closed / "data", "--shards", 1)
    assert refused.returncode == 1
    assert "is closed to it; choose another directory" in refused.stderr


def python_that_others_can_run() -> str | None:
    """Return an interpreter of our release that any user can run (ours may live below /root)."""
    account = choose_account("nobody")
    for name in (sys.executable, shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")):
        if name is None:
            continue
        try:
            run = subprocess.run([name, "-c", "pass"], check=False, cwd="/", **process_options(account))
        except OSError:
            continue
        if run.returncode == 0:
            return name
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests ran as an ordinary user")
def test_an_ordinary_user_runs_everything_as_itself() -> None:
    python, account = python_that_others_can_run(), choose_account("nobody")
    if python is None or account is None:
        pytest.skip("no Python here that an ordinary user can run")
    paths = os.pathsep.join([str(Path(package.__file__).parents[1]), str(Path(asyncpg.__file__).parents[1])])
    with reachable_directory() as directory:
        os.chown(directory, account.uid, account.gid)
        write_configuration(directory, account=account)
        environment = {"PYTHONPATH": paths, "HOME": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
        up = UpProcess(directory, ["--shards", "1"], account=account, environment=environment, python=python)
        up.wait_ready()
        pids = processes_in(directory)
        assert len(pids) > 2
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {account.uid}
        assert up.stop() == 0
        assert processes_in(directory) == []
