"""A throwaway PostgreSQL server for tests: real, durable as in production, gone afterwards.

`throwaway_server()` takes about a second. Inside it, `create_database()` copies a migrated template in a few
hundredths of a second, so that each test has a database of its own. As root the server runs as another user, and its
directory is made where that user can reach it.
"""

import asyncio
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg
from msgspec import Struct

from denizen.postgres.accounts import choose_account, reachable_binaries, require_entry
from denizen.postgres.binaries import find_binaries
from denizen.postgres.cluster import NewCluster
from denizen.postgres.migrations import migrate
from denizen.postgres.server import DATABASE, Server, ServerPlan, connect_args, socket_fits
from denizen.postgres.settings import throwaway_settings
from denizen.processes.accounts import private_directory

T = TypeVar("T")


class Database(Struct, frozen=True):
    """A database of a throwaway server: `asyncpg.connect(**database.connect_args)`, or its DSN (over TCP)."""

    name: str
    connect_args: dict[str, Any]
    dsn: str


class ThrowawayServer:
    """A running server with a migrated database `denizen`, which is also the template of new ones."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def connect_args(self, database: str = DATABASE) -> dict[str, Any]:
        """Return the arguments of `asyncpg.connect` for one of the server's databases."""
        return connect_args(self.server.plan, database)

    def dsn(self, database: str = DATABASE) -> str:
        """Return the address of one of the server's databases, over TCP."""
        plan = self.server.plan
        return f"postgresql://denizen:{quote(plan.password)}@127.0.0.1:{plan.port}/{database}"

    def database(self, name: str = DATABASE) -> Database:
        """Describe one of the server's databases."""
        return Database(name=name, connect_args=self.connect_args(name), dsn=self.dsn(name))

    def create_database(self, *, template: str = DATABASE) -> Database:
        """Make a database; migrated and empty like `denizen`, or wholly empty with the template "template0".

        Nobody may be connected to the template meanwhile: leave `denizen` alone and use what this returns.
        """
        name = f"test_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
        return self.database(name)

    def drop_database(self, database: Database) -> None:
        """Remove a database, cutting off whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside the tests' databases."""
        run_blocking(_execute(self.connect_args("postgres"), statement))


@contextmanager
def throwaway_server(
    *, fsync: bool = True, settings: Mapping[str, str] | None = None, template: bool = True
) -> Iterator[ThrowawayServer]:
    """Run a server for the length of a `with` block; call from the main thread.

    `settings` are laid over small defaults; `template=False` leaves out the migrated database `denizen`.
    """
    account = choose_account()
    with reachable_directory() as directory:
        require_entry(directory, account)
        sockets = private_directory(directory / "sockets", account)
        binaries = reachable_binaries(find_binaries(), account, directory / "engine")
        plan = ServerPlan(
            name="throwaway",
            data=directory / "data",
            log=directory / "server.log",
            binaries=binaries,
            account=account,
            password=secrets.token_urlsafe(16),
            settings={**throwaway_settings(fsync=fsync), **(settings or {})},
            socket_directory=sockets if socket_fits(sockets) else None,
        )
        new = NewCluster(plan.data, binaries=binaries, account=account, password=plan.password, sync=False)
        new.finish()
        server = Server(plan)
        server.start()
        try:
            server.wait_ready()
            throwaway = ThrowawayServer(server)
            if template:
                throwaway.execute(f"CREATE DATABASE {DATABASE}")
                run_blocking(migrate(throwaway.connect_args()))
            yield throwaway
        finally:
            server.stop()


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a temporary directory that another user may pass through (names inside are not listed), then remove it."""
    directory = Path(tempfile.mkdtemp(prefix="denizen-test-", dir=_temporary_root()))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary_root() -> str:
    # Short, so that Unix sockets fit; pytest's own directories are closed to other users and long.
    return os.environ.get("DENIZEN_TEST_DIRECTORY") or "/tmp"  # noqa: S108


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, whether or not a loop runs in this thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _execute(arguments: Mapping[str, Any], statement: str) -> None:
    connection = await asyncpg.connect(**arguments)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
