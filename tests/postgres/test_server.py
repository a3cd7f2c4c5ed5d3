"""A server of our own: private, durable, restarted, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from msgspec import structs

from denizen.errors import BadDeployment
from denizen.postgres.leftovers import running_postmaster
from denizen.postgres.server import HOST, Server
from denizen.processes.accounts import process_options
from denizen.processes.ports import find_port, is_free
from denizen.testing.postgres import ThrowawayServer, run_blocking, throwaway_server


@pytest.fixture(scope="module")
def own_server() -> Iterator[ThrowawayServer]:
    """A server that these tests may stop and kill."""
    with throwaway_server(template=False) as server:
        yield server


@pytest.fixture
def stopped(own_server: ThrowawayServer) -> Iterator[Server]:
    """The same server, stopped; it runs again afterwards."""
    own_server.server.stop()
    yield own_server.server
    own_server.server.restart()


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


async def query(server: ThrowawayServer, sql: str) -> object:
    connection = await asyncpg.connect(**server.connect_args("postgres"))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("over_tcp", [True, False])
async def test_nobody_gets_in_without_the_password(own_server: ThrowawayServer, over_tcp: bool) -> None:
    arguments = own_server.connect_args("postgres") | {"password": "wrong"}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(**arguments | ({"host": HOST} if over_tcp else {}))


async def test_it_runs_durably_and_with_checksums(own_server: ThrowawayServer) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
        assert await query(own_server, f"SHOW {setting}") == "on"


async def test_a_killed_server_starts_again_with_what_was_committed(own_server: ThrowawayServer) -> None:
    server, port = own_server.server, own_server.server.plan.port
    await query(own_server, "CREATE TABLE kept AS SELECT 7 AS a")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: server.exit_code == -signal.SIGKILL)
    server.restart()
    assert await query(own_server, "SELECT a FROM kept") == 7
    assert server.plan.port == port


def test_a_port_taken_meanwhile_is_replaced(stopped: Server) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        stopped._spawn(taken)  # as if the port had been free a moment ago
        stopped.wait_ready()
        assert stopped.plan.port != taken


def test_the_last_port_is_preferred_and_a_taken_one_avoided() -> None:
    free = find_port()
    assert find_port(free) == free
    assert find_port(free, taken=frozenset({free})) != free
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        assert not is_free(other.getsockname()[1])


def test_a_running_leftover_is_stopped_before_the_start(own_server: ThrowawayServer) -> None:
    first = own_server.server
    second = Server(first.plan)
    pid = first.pid
    second.start()
    try:
        second.wait_ready()
        assert second.stopped_leftover == pid
        assert first.exit_code == 0
    finally:
        second.stop()
        first.restart()


def test_lock_files_that_name_a_stranger_do_not_matter(stopped: Server) -> None:
    """Process ids are used again; PostgreSQL itself would refuse to start because of the stranger."""
    with subprocess.Popen(["sleep", "60"], **process_options(stopped.plan.account)) as stranger:
        lines = f"{stranger.pid}\n{stopped.plan.data}\n"
        (stopped.plan.data / "postmaster.pid").write_text(lines)
        assert stopped.plan.socket_directory is not None
        (stopped.plan.socket_directory / f".s.PGSQL.{stopped.plan.port}.lock").write_text(lines)
        assert running_postmaster(stopped.plan.data) is None
        stopped.start()
        stopped.wait_ready()
        assert stopped.stopped_leftover is None
        assert stranger.poll() is None
        stranger.terminate()


def test_data_of_another_release_are_refused_with_the_way_out(stopped: Server) -> None:
    other = Server(structs.replace(stopped.plan, binaries=structs.replace(stopped.plan.binaries, major=99)))
    with pytest.raises(BadDeployment, match=r"made by PostgreSQL \d+, but .* use PostgreSQL"):
        other.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start servers as several users")
def test_data_of_another_user_are_refused(stopped: Server) -> None:
    assert stopped.plan.account is not None
    other = Server(structs.replace(stopped.plan, account=structs.replace(stopped.plan.account, uid=65_533)))
    with pytest.raises(BadDeployment, match=r"data of throwaway belong to user '.*', but PostgreSQL would run as"):
        other.start()


def test_missing_data_are_said_and_never_made_anew(own_server: ThrowawayServer, tmp_path: Path) -> None:
    with pytest.raises(BadDeployment, match="data of throwaway are missing"):
        Server(structs.replace(own_server.server.plan, data=tmp_path / "gone")).start()


def test_a_setting_that_postgres_refuses_is_shown_from_its_log(stopped: Server) -> None:
    wrong = Server(structs.replace(stopped.plan, settings={"shared_buffers": "lots"}))
    wrong.start()
    with pytest.raises(BadDeployment, match=r'invalid value for parameter "shared_buffers"'):
        wrong.wait_ready()


CHILD = """
import time
from denizen.testing.postgres import throwaway_server
with throwaway_server(template=False) as server:
    print(server.server.plan.data, server.server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends the children of a killed parent")
def test_a_server_ends_when_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        data, pid = owner.stdout.readline().split()
        assert running_postmaster(Path(data)) == int(pid)
        owner.kill()
    wait_for(lambda: running_postmaster(Path(data)) is None)
    subprocess.run(["rm", "-rf", str(Path(data).parent)], check=True)


async def test_blocking_work_runs_inside_a_running_loop_too(own_server: ThrowawayServer) -> None:
    assert run_blocking(query(own_server, "SELECT 1")) == 1
