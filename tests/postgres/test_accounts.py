"""As root, servers run as another user, with programs and data that this user can reach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from denizen.errors import BadConfiguration
from denizen.postgres.accounts import choose_account, reachable_binaries, require_entry
from denizen.postgres.binaries import WHEEL_PACKAGE, find_binaries, wheel_directory
from denizen.processes.accounts import can_enter
from denizen.testing.postgres import reachable_directory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run servers as another user")


@as_root
def test_root_never_runs_servers_itself() -> None:
    account = choose_account()
    assert account is not None
    assert account.uid != 0
    with pytest.raises(BadConfiguration, match=r"postgres\.run_as: .* refuses to run as root"):
        choose_account("root")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can")
def test_an_ordinary_user_cannot_choose_another() -> None:
    assert choose_account() is None
    with pytest.raises(BadConfiguration, match=r"postgres\.run_as: .*root"):
        choose_account("root")


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(BadConfiguration, match=r"postgres\.run_as: this machine has no user 'nobody-at-all'"):
        choose_account("nobody-at-all")


@as_root
def test_data_that_the_user_cannot_reach_are_refused_and_the_closed_directory_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "data").mkdir()
    account = choose_account("nobody")
    with pytest.raises(BadConfiguration, match=r"data: user 'nobody'.* cannot reach .*closed/data: .* is closed to it"):
        require_entry(closed / "data", account)


INSIDE = """
import sys
from pathlib import Path
from denizen.postgres.accounts import choose_account, reachable_binaries
from denizen.postgres.binaries import find_binaries
from denizen.testing.postgres import throwaway_server
engine = Path(sys.argv[1])
found = find_binaries()
assert str(found.directory).startswith(sys.argv[2]), found
for _ in range(2):
    print(reachable_binaries(found, choose_account(), engine).directory)
with throwaway_server(template=False) as server:
    server.execute("SELECT 1")
    print(server.server.plan.binaries.directory)
"""


@as_root
def test_programs_in_a_closed_place_are_copied_once_and_work_from_the_copy(tmp_path: Path) -> None:
    package = wheel_directory().parents[1]
    closed = tmp_path / "site"
    closed.mkdir(mode=0o700)
    for source in (package, package.with_name(f"{WHEEL_PACKAGE}.libs")):
        if source.exists():
            ignored = shutil.ignore_patterns("include", "*.a", "pginstall")
            shutil.copytree(source, closed / source.name, ignore=ignored)
    with reachable_directory() as open_directory:
        engine = open_directory / "engine"
        environment = {**os.environ, "PYTHONPATH": str(closed)}
        command = [sys.executable, "-c", INSIDE, str(engine), str(closed)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        first, second, used = run.stdout.split()
        assert first == second
        assert Path(first).is_relative_to(engine)
        assert len(list(engine.iterdir())) == 1
        assert "/engine/" in used


@as_root
def test_other_programs_that_the_user_cannot_run_are_refused(tmp_path: Path) -> None:
    closed = tmp_path / "pg" / "bin"
    closed.mkdir(parents=True, mode=0o700)
    (tmp_path / "pg").chmod(0o700)
    for program in ("initdb", "postgres"):
        (closed / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n")
        (closed / program).chmod(0o755)
    account = choose_account()
    assert not can_enter(closed, account)
    with pytest.raises(BadConfiguration, match=r"postgres\.bin: user .* cannot run the programs in"):
        reachable_binaries(find_binaries(closed), account, tmp_path / "engine")


@pytest.mark.parametrize(
    ("version", "message"),
    [("postgres (PostgreSQL) 15.4", "is PostgreSQL 15.4; Denizen needs 16"), ("hello", "gives no version")],
)
def test_unfit_programs_are_refused(tmp_path: Path, version: str, message: str) -> None:
    for program in ("initdb", "postgres"):
        (tmp_path / program).write_text(f"#!/bin/sh\necho '{version}'\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(BadConfiguration, match=message):
        find_binaries(tmp_path)


def test_a_directory_without_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=rf"postgres\.bin: {tmp_path} has no initdb and no postgres"):
        find_binaries(tmp_path)
