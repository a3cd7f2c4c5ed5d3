"""An export holds every user, and importing it elsewhere gives the same users."""

import csv
import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from denizen.bench.people import people
from denizen.bulk.exports.target import target
from denizen.errors import BadConfiguration
from denizen.testing.deployment import RunningDeployment, throwaway_deployment

BY_DEPLOYMENT = ("id", "version", "created_at", "updated_at")


def denizen(running: RunningDeployment, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "denizen", *arguments, "--data", str(running.data)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done


def users_of(content: bytes) -> dict[str, dict[str, Any]]:
    """By email, without what belongs to one deployment."""
    users = [json.loads(line) for line in content.splitlines()]
    return {user["email"]: {key: value for key, value in user.items() if key not in BY_DEPLOYMENT} for user in users}


@pytest.fixture(scope="module")
def people_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "people.ndjson"
    path.write_text("".join(json.dumps(person, ensure_ascii=False) + "\n" for person in people(500)))
    return path


def test_an_export_imported_elsewhere_gives_the_same_users(people_file: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.ndjson.gz"
    with throwaway_deployment(shards=2, arguments=["--no-gateway"]) as running:
        denizen(running, "import", str(people_file))
        denizen(running, "export", str(first))
        table = denizen(running, "export", "-", "--format", "csv").stdout.decode()
    exported = users_of(gzip.decompress(first.read_bytes()))
    assert len(exported) == 500
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o600
    assert {row["email"] for row in csv.DictReader(table.splitlines())} == set(exported)
    with throwaway_deployment(shards=1, arguments=["--no-gateway"]) as running:
        denizen(running, "import", str(first))
        assert users_of(denizen(running, "export", "-").stdout) == exported


def test_an_export_that_fails_leaves_no_file(people_file: Path, tmp_path: Path) -> None:
    with throwaway_deployment(shards=1, arguments=["--no-gateway"]) as running:
        denizen(running, "import", str(people_file))
        done = denizen(running, "export", str(tmp_path / "missing" / "users.ndjson"), code=1)
        assert b"cannot write" in done.stderr
        assert b"is a directory; name a file in it" in denizen(running, "export", str(tmp_path), code=1).stderr
        data = running.data
        running.up.stop()
        command = [sys.executable, "-m", "denizen", "export", str(tmp_path / "users.ndjson"), "--data", str(data)]
        stopped = subprocess.run(command, capture_output=True, check=False)
        assert stopped.returncode == 1
        assert b"does not answer (no server listens there)" in stopped.stderr
        assert b"Traceback" not in stopped.stderr
        assert list(tmp_path.iterdir()) == []


def test_an_export_removes_what_killed_ones_to_the_same_file_left(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f".users.*.{gone.pid}.part"
    others = [tmp_path / f".users.*.{os.getppid()}.part", tmp_path / f".users.x.{gone.pid}.part"]
    for path in (left, *others):
        path.touch()
    with target(str(tmp_path / "users.*")) as file:
        file.write(b"whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "users.*", *others}


def test_a_name_that_cannot_be_taken_is_told(tmp_path: Path) -> None:
    name = tmp_path / "users"
    with pytest.raises(BadConfiguration, match="Is a directory"), target(str(name)):
        name.mkdir()
    assert list(tmp_path.iterdir()) == [name]
