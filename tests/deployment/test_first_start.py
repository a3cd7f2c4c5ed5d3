"""A first start that fails: everything is checked before anything starts, and nothing of what it was told remains."""

from pathlib import Path

import pytest

from denizen.cli.up import open_deployment
from denizen.deployment.config import Config, load_config
from denizen.deployment.layout import Deployment
from denizen.errors import BadConfiguration
from denizen.sharding.bucket_map import initial_map, write_map
from denizen.testing.deployment import UpProcess
from denizen.testing.postgres import Database
from deployment.processes import denizen, processes_in

NOBODY = "postgresql://me:secret@127.0.0.1:1/people"


def told(shards: int | None = None, *dsns: str, login_names: str = "email,username") -> Config:
    environment = {"DENIZEN_DEPLOYMENT_LOGIN_NAMES": login_names}
    return load_config(environment=environment, flags={"deployment.shards": shards, "deployment.shard_dsns": dsns})


def shards_of(deployment: Deployment) -> list[str]:
    return [shard.dsn or shard.directory or "" for shard in Deployment.load(deployment.directory).record.shards]


def test_after_a_wrong_dsn_the_right_one_is_taken(directory: Path, empty_database: Database) -> None:
    first = ("up", "--data", directory / "data", "--shards", 1, "--shard-dsn")
    failed = denizen(*first, NOBODY)
    assert "shard s2: postgresql://me:***@127.0.0.1:1/people does not answer" in failed.stderr
    assert (failed.stdout, list((directory / "data" / "shards").iterdir())) == ("", [])
    up = UpProcess(directory, ["--shards", "1", "--shard-dsn", empty_database.dsn, "--no-gateway"]).wait_ready()
    assert shards_of(up.deployment) == ["shards/s1", empty_database.dsn]
    up.stop()
    refused = denizen(*first, NOBODY)
    assert "was made with other DSNs" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("--listen", "192.0.2.1:80"), {}, "gateway.listen: 192.0.2.1:80 is in use (or not an address of this"),
        (("--pg-bin", "/nowhere"), {}, "postgres.bin: /nowhere has no initdb and no postgres"),
        ((), {"DENIZEN_POSTGRES_RUN_AS": "nobody-of-this-name"}, "postgres.run_as"),
    ],
)
def test_what_can_be_checked_is_checked_before_anything_starts(
    directory: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    failed = denizen("up", "--data", directory / "data", "--shards", 1, *arguments, **environment)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert message in failed.stderr
    assert not (directory / "data" / "control").exists()
    assert processes_in(directory) == []
    assert len(shards_of(open_deployment(directory / "data", told(2)))) == 2


def test_until_a_shard_is_made_the_newest_flags_hold(tmp_path: Path) -> None:
    assert shards_of(open_deployment(tmp_path, told(1, NOBODY))) == ["shards/s1", NOBODY]
    born = Deployment.load(tmp_path)
    again = open_deployment(tmp_path, told(login_names="email,phone"))
    assert (shards_of(again), again.login_names) == (["shards/s1", NOBODY], ("email", "phone"))
    assert shards_of(open_deployment(tmp_path, told(None, NOBODY))) == [NOBODY]
    again = open_deployment(tmp_path, told(2))
    assert (shards_of(again), again.login_names) == (["shards/s1", "shards/s2"], ("email", "username"))
    assert (again.id, again.hash_seed) == (born.id, born.hash_seed)


@pytest.mark.parametrize("what", ["data directory", "map"])
def test_a_birth_that_was_cut_off_goes_on_with_what_was_decided(tmp_path: Path, what: str) -> None:
    deployment = open_deployment(tmp_path, told(2))
    if what == "map":  # it is there before any database is claimed
        write_map(deployment.map_path, initial_map(deployment.shard_ids))
    else:
        (tmp_path / "shards" / "s2").mkdir()
    with pytest.raises(BadConfiguration, match="has 2 servers since its birth"):
        open_deployment(tmp_path, told(3))
    with pytest.raises(BadConfiguration, match="was made with other DSNs"):
        open_deployment(tmp_path, told(None, NOBODY))
    assert shards_of(open_deployment(tmp_path, told())) == ["shards/s1", "shards/s2"]


def test_a_data_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    for place in (tmp_path / ("n" * 300), Path("/proc/nowhere")):
        failed = denizen("up", "--data", place)
        assert failed.returncode == 1
        assert f"denizen: the data directory {place} cannot be used: " in failed.stderr
        assert "Traceback" not in failed.stderr
