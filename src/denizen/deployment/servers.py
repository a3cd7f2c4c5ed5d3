"""The PostgreSQL servers of a deployment that this machine runs: all of them started, kept and stopped together."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from denizen import limits
from denizen.deployment.config import PostgresSection
from denizen.deployment.layout import READ_DIRECTORY, READ_SERVER, Deployment
from denizen.deployment.state import ServerState
from denizen.deployment.waiting import until
from denizen.errors import BadDeployment
from denizen.postgres.accounts import choose_account, reachable_binaries, require_entry
from denizen.postgres.binaries import Binaries, find_binaries
from denizen.postgres.cluster import NewCluster
from denizen.postgres.leftovers import clear_leftovers
from denizen.postgres.server import Server, ServerPlan, socket_fits
from denizen.postgres.settings import machine_memory_bytes, shard_settings
from denizen.processes.accounts import Account, give, private_directory


class ShardProcess(Server):
    """A shard's server under supervision."""

    def __init__(self, plan: ServerPlan) -> None:
        super().__init__(plan)
        self.name = plan.name
        self.restarts = 0

    async def launch(self) -> None:
        """Start the server and wait until it takes connections."""
        self.start()
        await self.ready()

    async def ready(self) -> None:
        """Wait until the server takes connections. Raises `BadDeployment` with its log if it does not."""
        if not await until(self.check_ready, limits.server_recovery_s):
            raise BadDeployment(f"{self.name} is not ready after {limits.server_recovery_s:.0f} s:\n{self.said()}")

    def running_state(self) -> ServerState:
        """Return what other processes need to know."""
        sockets = self.plan.socket_directory
        return ServerState(
            port=self.plan.port,
            socket_directory=str(sockets) if sockets else None,
            pid=self.pid,
            restarts=self.restarts,
        )


class _Common(Struct, frozen=True):
    account: Account | None
    binaries: Binaries
    sockets: Path | None


class Servers:
    """All servers of the deployment that are ours, the shards' and that of the read models. Those of shards that are
    still joining come with `add`: nobody else waits for one that cannot be made.
    """

    def __init__(self, deployment: Deployment, config: PostgresSection, *, read: bool = True) -> None:
        """Decide how each server will run; without `read` only those of shards.

        Raises `BadConfiguration` if programs, account or directories cannot be used.
        """
        self.deployment = deployment
        self.processes: list[ShardProcess] = []
        self._config = config
        self._made: _Common | None = None
        joined = [shard for shard in deployment.present if not shard.joining]
        managed = {shard.id: shard.directory for shard in joined if shard.directory is not None}
        if read:
            managed[READ_SERVER] = READ_DIRECTORY
        for name, directory in managed.items():
            self.processes.append(ShardProcess(self._plan(name, directory, len(managed))))

    @property
    def binaries(self) -> Binaries:
        """PostgreSQL's programs that these servers run on."""
        return self._common().binaries

    def _common(self) -> "_Common":
        """What all servers share, found when the first one needs it."""
        if self._made is None:
            account = choose_account(self._config.run_as)
            require_entry(self.deployment.directory / "shards", account)
            found = find_binaries(Path(self._config.bin) if self._config.bin else None)
            binaries = reachable_binaries(found, account, self.deployment.directory / "engine")
            self._made = _Common(account, binaries, _socket_directory(self.deployment, account))
        return self._made

    def _plan(self, name: str, directory: str, servers: int) -> ServerPlan:
        """How a server runs that is one of so many."""
        common, last = self._common(), self.deployment.state().shards
        return ServerPlan(
            name=name,
            data=self.deployment.directory / directory,
            log=self.deployment.logs / f"{name}.log",
            binaries=common.binaries,
            account=common.account,
            password=self.deployment.password(),
            settings=_settings(self._config, servers, common.binaries),
            socket_directory=common.sockets,
            port=last[name].port if name in last else 0,
        )

    async def add(self, name: str, directory: str) -> ShardProcess:
        """Make the server if its data directory is missing, and start it. Repeating it changes nothing."""
        known = next((process for process in self.processes if process.name == name), None)
        if known is not None:
            return known
        process = ShardProcess(self._plan(name, directory, len(self.processes) + 1))
        if not process.plan.data.exists():
            await self.initialise([process])
        process.start(frozenset(other.plan.port for other in self.processes))
        try:
            await process.ready()
        except BaseException:
            process.stop(0)
            raise
        self.processes.append(process)
        return process

    async def remove(self, name: str, seconds: float = limits.server_stop_s) -> None:
        """Stop one server for good. Repeating it changes nothing."""
        for process in [process for process in self.processes if process.name == name]:
            process.begin_stop()
            await until(lambda process=process: process.pid is None, seconds)  # type: ignore[misc]
            process.stop(0)
            self.processes.remove(process)

    def missing(self) -> list[ShardProcess]:
        """Return the servers that have no data directory yet.

        Raises `BadDeployment` if that cannot be, because the deployment has been running before. Read models that are
        missing are made anew: they hold nothing that the shards do not have.
        """
        missing = [process for process in self.processes if not process.plan.data.exists()]
        lost = [process for process in missing if process.name != READ_SERVER]
        if lost and self.deployment.record.born:
            raise BadDeployment(
                f"{lost[0].plan.data} is missing: the data of shard {lost[0].name} are gone; "
                "bring the directory back, or restore it from a backup"
            )
        return missing

    async def initialise(self, missing: Iterable[ShardProcess]) -> None:
        """Run `initdb` for each of the servers, side by side."""
        clusters = [
            NewCluster(p.plan.data, binaries=self.binaries, account=p.plan.account, password=p.plan.password)
            for p in missing
        ]
        try:
            for cluster in clusters:
                await until(cluster.ended)
                cluster.finish()
        finally:
            for cluster in clusters:
                cluster.abandon()  # those not finished, because another failed or we were asked to stop

    async def start(self) -> list[str]:
        """Start every server, side by side; return notes about what a killed start had left running."""
        notes, taken = [], frozenset[int]()
        for process in self.processes:
            process.start(taken)
            taken |= {process.plan.port}
            if process.stopped_leftover:
                notes.append(
                    f"{process.name}: a server left by an earlier start (pid {process.stopped_leftover}) was stopped"
                )
        for process in self.processes:
            await process.ready()
        return notes

    async def stop(self, seconds: float = limits.server_stop_s) -> None:
        """Stop every server, side by side; after `seconds` without waiting for their clients or checkpoints."""
        for process in self.processes:
            process.begin_stop()
        await until(lambda: all(process.pid is None for process in self.processes), seconds)
        for process in self.processes:
            process.stop(0)
        _remove_temporary(self.processes)


def stop_leftovers(deployment: Deployment) -> list[str]:
    """Stop servers of a deployment whose supervisor is gone; return their names."""
    managed = {shard.id: shard.directory for shard in deployment.present if shard.directory is not None}
    managed[READ_SERVER] = READ_DIRECTORY
    return [name for name, directory in managed.items() if clear_leftovers(deployment.directory / directory)]


def _settings(config: PostgresSection, servers: int, binaries: Binaries) -> dict[str, str]:
    own = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in config.settings.items()
    }
    memory = config.memory_bytes or machine_memory_bytes()
    tuned = shard_settings(
        memory_bytes=memory, servers=servers, major=binaries.major, connections=config.max_connections
    )
    return {**tuned, **own}


def _socket_directory(deployment: Deployment, account: Account | None) -> Path:
    """Return `run/pg`, or a private temporary directory where that path is too long for the kernel."""
    usual = deployment.directory / "run" / "pg"
    if socket_fits(usual):
        return private_directory(usual, account)
    for server in deployment.state().shards.values():
        last = Path(server.socket_directory) if server.socket_directory else None
        if last and _is_private(last, account):
            return last
    fresh = Path(tempfile.mkdtemp(prefix="denizen-", dir="/tmp"))  # the shortest path there is
    give(fresh, account)
    return fresh


def _is_private(directory: Path, account: Account | None) -> bool:
    try:
        facts = os.lstat(directory)
    except OSError:
        return False
    return facts.st_mode == 0o40700 and facts.st_uid == (account.uid if account else os.geteuid())


def _remove_temporary(processes: Iterable[ShardProcess]) -> None:
    for directory in {process.plan.socket_directory for process in processes}:
        if directory and directory.parent == Path("/tmp"):  # noqa: S108
            try:
                directory.rmdir()
            except OSError:
                continue
