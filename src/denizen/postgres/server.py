"""One PostgreSQL server, run as a direct child of this process.

`start` spawns `postgres` itself (not `pg_ctl`, which would leave it to nobody), `wait_ready` waits until it takes
connections, `stop` asks for a fast shutdown. Several servers start in parallel: `start` each, then `wait_ready` each.
If this process is killed, the kernel sends the server the signal of a fast shutdown (see `processes`).

It listens on TCP at 127.0.0.1, and on a Unix socket where the directory's path is short enough for the kernel.
Every connection needs the password (SCRAM), for every other user of the machine can reach loopback.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from denizen import limits
from denizen.errors import BadDeployment
from denizen.postgres.binaries import Binaries, postgres_environment
from denizen.postgres.cluster import OWNER
from denizen.postgres.leftovers import clear_leftovers
from denizen.postgres.settings import render
from denizen.processes.accounts import Account, give, user_name
from denizen.processes.children import ChildProcess
from denizen.processes.ports import find_port

HOST = "127.0.0.1"
DATABASE = "denizen"
SOCKET_PATH_BYTES_MAX = 100
POLL_SECONDS = 0.01


class ServerPlan(Struct, frozen=True):
    """Everything that is decided about a server before it runs."""

    name: str
    data: Path
    log: Path
    binaries: Binaries
    account: Account | None
    password: str
    settings: Mapping[str, str]
    socket_directory: Path | None = None
    port: int = 0  # 0: find one


def connect_args(plan: ServerPlan, database: str = DATABASE) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect` for a database of this server."""
    return {
        "host": str(plan.socket_directory) if plan.socket_directory else HOST,
        "port": plan.port,
        "user": OWNER,
        "password": plan.password,
        "database": database,
        "ssl": False,
    }


def socket_fits(directory: Path) -> bool:
    """Say whether a socket in `directory` has a path that the kernel takes (about 107 bytes)."""
    return len(os.fsencode(directory / ".s.PGSQL.65535")) < SOCKET_PATH_BYTES_MAX


class Server(ChildProcess):
    """A server that this process owns; `plan` says how it runs, with its port after `start`."""

    def __init__(self, plan: ServerPlan) -> None:
        super().__init__(plan.log)
        self.plan = plan
        self.stopped_leftover: int | None = None

    def start(self, taken: frozenset[int] = frozenset()) -> None:
        """Spawn the server on a free port that is not `taken`; from the main thread. It may not be ready yet.

        Raises `BadDeployment` if the data directory is missing, made by another release, or held by a server that
        cannot be stopped.
        """
        self._check_data()
        self.stopped_leftover = clear_leftovers(self.plan.data)
        self._spawn(find_port(self.plan.port, host=HOST, taken=taken))

    def wait_ready(self, seconds: float = limits.server_start_s) -> None:
        """Wait until the server takes connections; a port lost to somebody else meanwhile is replaced.

        Raises `BadDeployment` with the end of the server's log if it stops, or takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not self.check_ready():
            if time.monotonic() > deadline:
                raise BadDeployment(f"{self.plan.name} is not ready after {seconds:.0f} s:\n{self.said()}")
            time.sleep(POLL_SECONDS)

    def check_ready(self) -> bool:
        """Say whether the server takes connections; start it once more if it ended for a reason that passes.

        Raises `BadDeployment` with the end of the server's log if it ended for another reason.
        """
        if self.is_ready():
            return True
        if self.exit_code is not None:
            said = self.said()
            if "could not bind" in said or "Address already in use" in said:
                self._spawn(find_port(host=HOST, taken=frozenset({self.plan.port})))
            elif "pre-existing shared memory block" in said:
                self._spawn(self.plan.port)  # processes of the killed server before us are still ending
            else:
                raise BadDeployment(f"the PostgreSQL server of {self.plan.name} does not start:\n{said}")
        return False

    def is_ready(self) -> bool:
        """Say whether the running server takes connections, by the status line it keeps in its pid file."""
        pid = self.pid
        if pid is None:
            return False
        try:
            lines = (self.plan.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def begin_stop(self) -> None:
        """Ask for a fast shutdown: transactions are rolled back, a checkpoint is written."""
        self._signal(signal.SIGINT)

    def stop(self, seconds: float = limits.server_stop_s) -> None:
        """Stop the server and wait for its end; after `seconds` by an immediate shutdown (recovery at next start)."""
        if self._process is None:
            return
        self.begin_stop()
        for limit, then in ((seconds, signal.SIGQUIT), (limits.server_immediate_stop_s, signal.SIGKILL)):
            try:
                self._process.wait(timeout=limit)
                return
            except subprocess.TimeoutExpired:
                self._process.send_signal(then)
        self._process.wait()

    def restart(self) -> None:
        """Stop the server, start it again on the same port, and wait until it is ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def _check_data(self) -> None:
        data, binaries = self.plan.data, self.plan.binaries
        try:
            made_by = (data / "PG_VERSION").read_text().strip()
        except OSError:
            raise BadDeployment(
                f"{data} is not a PostgreSQL data directory: the data of {self.plan.name} are missing"
            ) from None
        owner, ours = data.stat().st_uid, self.plan.account.uid if self.plan.account else os.geteuid()
        if owner != ours:
            raise BadDeployment(
                f"the data of {self.plan.name} belong to {user_name(owner)}, but PostgreSQL would run as "
                f"{user_name(ours)}: start as the user who made them, or set postgres.run_as"
            )
        if made_by != str(binaries.major):
            raise BadDeployment(
                f"the data of {self.plan.name} were made by PostgreSQL {made_by}, but {binaries.directory} is "
                f"{binaries.version}: use PostgreSQL {made_by} (--pg-bin), or pg_upgrade {data} first"
            )

    def _spawn(self, port: int) -> None:
        self.plan = structs.replace(self.plan, port=port)
        self._write_settings()
        self._clear_socket()
        self._run(
            [str(self.plan.binaries.path("postgres")), "-D", str(self.plan.data)],
            account=self.plan.account,
            cwd=self.plan.data,
            env=postgres_environment(),
            at_our_death=signal.SIGINT,
        )

    def _clear_socket(self) -> None:
        """Remove the socket of a killed server: its lock file names a process id that may be a stranger's by now.

        The directory is ours alone, and our servers all listen on TCP too: the port is free, so nobody uses it.
        """
        if self.plan.socket_directory:
            for suffix in ("", ".lock"):
                (self.plan.socket_directory / f".s.PGSQL.{self.plan.port}{suffix}").unlink(missing_ok=True)

    def _write_settings(self) -> None:
        sockets = self.plan.socket_directory
        settings = {
            **self.plan.settings,
            "listen_addresses": HOST,
            "port": str(self.plan.port),
            "unix_socket_directories": str(sockets) if sockets else "",
            "cluster_name": self.plan.name,
        }
        text = "# Written by Denizen at every start; change [postgres.settings] in denizen.toml instead.\n"
        path = self.plan.data / "denizen.conf"
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        # Never through a link: as root we write into a directory of another user.
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(text + render(settings))
        give(fresh, self.plan.account)
        fresh.rename(path)
