"""A backup of a deployment while it serves: one directory, which is a data directory again.

    no bucket moves → a base backup of every server of ours, all at once → the deployment's own files → its name

Each server's backup is one moment of that server, soon after the others'. A change of login names that was committed
on one shard before its moment, and on another after it, is cut in two: `denizen verify --repair` mends that.

What holds nothing of its own is left out, for the next start makes it: the read models, the bus, logs, and the control
plane (from the shards). So are the journals of imports: they would say that rows are done which the backup has not.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import asyncpg
from msgspec import Struct

from denizen.control.state import COMMITTED, RebalanceStatus
from denizen.deployment.control_access import client_of
from denizen.deployment.layout import RECORD, Deployment, write_private
from denizen.deployment.lock import holder
from denizen.deployment.waiting import until
from denizen.errors import BadConfiguration, BadDeployment, Refused, Unavailable
from denizen.events.lanes import BROKEN
from denizen.files import sync_directory
from denizen.postgres.binaries import Binaries, postgres_environment
from denizen.processes.accounts import Account, give
from denizen.processes.children import spawn

_PROGRAM: Final = "pg_basebackup"
_POLL_S: Final = 0.25
_FILES: Final = (RECORD, "map.json", "denizen.toml")
_KEYRING: Final = "keyring.json"
_SIZE: Final = "select sum(pg_database_size(oid))::bigint from pg_database"
Advance = Callable[[int, int], None]  # bytes written, of about so many


class BackedUp(Struct, frozen=True):
    """What a backup holds. `elsewhere` are shards on servers of somebody else's, which it does not hold."""

    path: str
    shards: tuple[str, ...]
    elsewhere: tuple[str, ...]
    keyring: bool
    bytes: int
    seconds: float


async def back_up(
    deployment: Deployment,
    target: Path,
    *,
    binaries: Binaries,
    account: Account | None,
    keyring: bool,
    advance: Advance,
) -> BackedUp:
    """Write a backup to `target`, which appears when it is whole. `account` will own the servers' files.

    Raises `BadDeployment` if it cannot be made, `Refused` while buckets move, `Unavailable` without a control plane.
    """
    began = time.monotonic()
    if holder(deployment.lock_path) is None:
        raise BadDeployment(
            f"the deployment in {deployment.directory} is stopped: a copy of the directory with its owners (cp -a) is "
            "its backup"
        )
    _require_program(binaries)
    _require_elsewhere(target, deployment.directory)
    shards = {shard: server for shard, server in deployment.shards.items() if not deployment.joins(shard)}
    ours = {str(shard): server.connect_args for shard, server in shards.items() if server.managed}
    version = await _still_map(deployment)
    with _appearing(target) as directory:
        await _base_backups(ours, directory, binaries, advance)
        if await _still_map(deployment) != version:
            raise Refused("buckets moved while the backup was made: make it again", reason="moving")
        _copy_files(deployment, directory, keyring=keyring)
        for path in (directory / "shards").rglob("*"):
            give(path, account)
        size = _size_of(directory)
    return BackedUp(
        str(target),
        tuple(ours),
        tuple(str(shard) for shard, server in shards.items() if not server.managed),
        keyring,
        size,
        round(time.monotonic() - began, 2),
    )


def _require_program(binaries: Binaries) -> None:
    if not Path(binaries.path(_PROGRAM)).exists():
        raise BadConfiguration(f"postgres.bin: {binaries.directory} has no {_PROGRAM}")


def _require_elsewhere(target: Path, data: Path) -> None:
    if target.resolve().is_relative_to(data.resolve()):
        raise BadDeployment(f"{target} is in the data directory itself: name a place that is not lost with it")


async def _still_map(deployment: Deployment) -> int:
    """The version of the bucket map, while nothing moves."""
    state = await client_of(deployment).state(linearizable=True)
    running = state.rebalance is not None and state.rebalance.status is RebalanceStatus.RUNNING
    if state.moves and not running and all(move.stage in COMMITTED for move in state.moves.values()):
        raise Refused(
            "sources keep copies of buckets that moved: wait until they are removed, or let "
            "`denizen rebalance clean` do it now",
            reason="moving",
        )
    if running or state.moves or state.map is None:
        raise Refused(
            "buckets are moving: let the rebalance end (`denizen rebalance status --watch`), or pause it and wait for "
            "the moves under way",
            reason="moving",
        )
    return state.map.version


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A directory that gets this name when all is well, and is removed otherwise."""
    if target.exists():
        raise BadDeployment(f"{target} exists: name a directory that does not exist yet")
    directory = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        (directory / "shards").mkdir(parents=True)
        directory.chmod(0o700)
        yield directory
        directory.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise BadDeployment(f"the backup cannot be written to {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _base_backups(
    servers: Mapping[str, Mapping[str, Any]], directory: Path, binaries: Binaries, advance: Advance
) -> None:
    about = sum([await _database_bytes(name, connect_args) for name, connect_args in servers.items()])
    running: dict[str, _Running] = {}
    try:
        for name, connect_args in servers.items():
            running[name] = _Running(connect_args, directory / "shards" / name, binaries)
        while not await until(lambda: all(each.ended for each in running.values()), _POLL_S):
            advance(_size_of(directory), about)
        for name, each in running.items():
            if each.error is not None:
                raise BadDeployment(f"the base backup of {name} failed: {each.error}")
    finally:
        for each in running.values():
            each.end()


async def _database_bytes(name: str, connect_args: Mapping[str, Any]) -> int:
    try:
        connection = await asyncpg.connect(**connect_args)
        try:
            return int(await connection.fetchval(_SIZE))
        finally:
            await connection.close()
    except (asyncpg.PostgresError, *BROKEN) as error:
        raise Unavailable(f"shard {name} does not answer: {error}") from error


class _Running:
    """A base backup under way."""

    def __init__(self, connect_args: Mapping[str, Any], target: Path, binaries: Binaries) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        where = ["--host", str(connect_args["host"]), "--port", str(connect_args["port"])]
        where += ["--username", str(connect_args["user"]), "--no-password"]
        self._process: subprocess.Popen[bytes] = spawn(
            [binaries.path(_PROGRAM), *where, "--pgdata", str(target), "--checkpoint=fast", "--label=denizen"],
            log=self._output,
            env=postgres_environment() | {"PGPASSWORD": str(connect_args["password"])},
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def error(self) -> str | None:
        """What it said, if it failed."""
        if self._process.returncode == 0:
            return None
        self._output.seek(0)
        return self._output.read().decode(errors="replace").strip() or f"exit code {self._process.returncode}"

    def end(self) -> None:
        """Stop it if it runs."""
        if not self.ended:
            self._process.terminate()
            self._process.wait()
        self._output.close()


def _copy_files(deployment: Deployment, directory: Path, *, keyring: bool) -> None:
    for name in _FILES:
        source = deployment.directory / name
        if source.exists():
            write_private(directory / name, source.read_bytes())
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o700)
    for source in sorted((deployment.directory / "secrets").iterdir()):
        if source.is_file() and not source.name.startswith(".") and (keyring or source.name != _KEYRING):
            write_private(secrets / source.name, source.read_bytes())


def _size_of(directory: Path) -> int:
    """The bytes of all files; those that vanish meanwhile do not count."""
    size = 0
    for path, _, files in os.walk(directory):
        for name in files:
            try:
                size += (Path(path) / name).stat().st_size
            except FileNotFoundError:
                continue
    return size
