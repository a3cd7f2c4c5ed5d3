"""The one process that owns a deployment's servers: it starts them in order, keeps them running, and stops them.

    start   lock → address, given databases and programs are checked → control plane (nobody waits for it) → PostgreSQL
            servers (side by side) → databases and migrations (side by side) → bus → gateway → event processes → at the
            birth: the control plane is founded → ready
    keep    a server or process that ends by itself is started again, at once at first, then less often;
            the agent makes servers of shards that join, and stops those of shards that leave
    stop    agent → gateway (finishes its requests) → event processes → control plane → PostgreSQL servers (fast
            shutdown) → bus → lock

It owns them by the operating system's means: they are its children, and the kernel ends them if it is killed. What a
killed supervisor left all the same (elsewhere than Linux) is stopped by the next start.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec import Struct, structs

from denizen import __version__
from denizen.deployment.admin_key import create_admin_key
from denizen.deployment.agent import Agent
from denizen.deployment.birth import check_given, ensure_map, prepare_shard
from denizen.deployment.config import Config
from denizen.deployment.control_plane import ControlPlane
from denizen.deployment.event_plane import EventPlane
from denizen.deployment.gateway import GatewayProcess, stop_leftover_gateway
from denizen.deployment.keeping import Child, keep_running
from denizen.deployment.layout import Deployment, ShardRecord
from denizen.deployment.lock import DirectoryLock
from denizen.deployment.read_side import ReadDatabaseAway, prepare_read
from denizen.deployment.servers import Servers
from denizen.deployment.state import write_state
from denizen.errors import BadDeployment, DenizenError
from denizen.postgres.migrations import Migration


class Ready(Struct, frozen=True):
    """What people need when everything runs; `admin_key` only at the first start."""

    deployment: str
    data: str
    url: str | None
    admin_key: str | None
    shards: tuple[str, ...]
    seconds: float


class Narrator(Protocol):
    """Whom the supervisor tells what it does."""

    def step(self, text: str) -> None:
        """Something begins that takes a moment."""
        ...

    def done(self, text: str) -> None:
        """The step is over."""
        ...

    def note(self, text: str) -> None:
        """Something that people should see, at any time."""
        ...

    def ready(self, ready: Ready) -> None:
        """Everything runs."""
        ...


class Supervisor:
    """Runs one deployment from `run`'s call to its return."""

    def __init__(self, deployment: Deployment, config: Config, narrator: Narrator, *, gateway: bool = True) -> None:
        """Prepare; without `gateway` only the PostgreSQL servers run.

        Raises `BadConfiguration` if this deployment's control plane was founded otherwise.
        """
        self.deployment = deployment
        self.config = config
        self.narrator = narrator
        self.gateway = GatewayProcess(deployment, config.gateway) if gateway else None
        self.events = EventPlane(deployment, config.bus) if gateway and config.bus.enabled else None
        self.control = ControlPlane(deployment, config.control, self._write_state) if gateway else None
        self.agent = Agent(deployment, self.control.client, self, self._tell) if self.control else None
        self.servers: Servers | None = None
        self._stopping = asyncio.Event()
        self._signals = 0
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._defect: asyncio.Future[None]  # made with the loop
        # The last ports are kept until there are new ones.
        self._state = structs.replace(
            deployment.state(), pid=os.getpid(), version=__version__, started_at=datetime.now(UTC), ready=False
        )

    async def run(self) -> None:
        """Start everything, keep it running until a signal or `request_stop`, then stop everything.

        Raises `BadDeployment` or `BadConfiguration` if the start fails; what had been started is stopped again.
        """
        lock = DirectoryLock(self.deployment.lock_path)
        lock.acquire()
        try:
            self.deployment.refresh()
            self.deployment.use_keyring()  # nothing is started that could not be read
            with _OnSignals(self.request_stop):
                await self._serve()
        finally:
            lock.release()

    def request_stop(self) -> None:
        """Begin to stop, in order; asked again, do not wait for the gateway's requests."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1 and self.gateway:
            self.gateway.kill()

    async def _serve(self) -> None:
        self._defect = asyncio.get_running_loop().create_future()
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await self._keep(stopping)
        finally:
            for task in (tasks := [starting, stopping, *self._keepers.values()]):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop()

    async def _start(self) -> None:
        began = time.monotonic()
        leftover = stop_leftover_gateway(self.deployment)
        if leftover is not None:
            self.narrator.note(f"a gateway left by an earlier start (pid {leftover}) was stopped")
        if self.gateway:
            self.gateway.choose_port()
        await check_given(self.deployment)
        read_dsn = self.config.read.dsn
        servers = Servers(self.deployment, self.config.postgres, read=self.events is not None and read_dsn is None)
        if self.control:
            await self.control.start()
        self.deployment.write_read_dsn(read_dsn)
        await self._start_servers(servers)
        await self._prepare_shards()
        await self._start_bus()
        admin_key = None if self.deployment.record.born else await create_admin_key(self.deployment)
        if self.gateway:
            self.narrator.step("Starting the gateway")
            await self.gateway.launch()
            self.narrator.done(f"Gateway on {self.gateway.running_state().url}")
        if self.events:
            await self.events.start_processes()
        if self.agent and not self.deployment.record.born:
            await self._found_control_plane(self.agent)
        self._write_state(ready=True)
        self.narrator.ready(
            Ready(
                deployment=str(self.deployment.id),
                data=str(self.deployment.directory),
                url=self.gateway.running_state().url if self.gateway else None,
                admin_key=admin_key,
                shards=self.deployment.shard_ids,
                seconds=round(time.monotonic() - began, 2),
            )
        )
        if not self.deployment.record.born:
            self.deployment.mark_born()  # after the key was shown: a start killed before makes another

    async def _found_control_plane(self, agent: Agent) -> None:
        """At the birth, wait for it; later the agent does what is left to be done."""
        self.narrator.step("Founding the control plane")
        try:
            await agent.found()
        except DenizenError as error:
            self.narrator.note(f"the control plane is not founded yet ({error}); the agent goes on trying")
        else:
            self.narrator.done("Control plane founded")

    async def _start_servers(self, servers: Servers) -> None:
        self.servers = servers
        names = _names([process.name for process in self.servers.processes])
        missing = self.servers.missing()
        if missing:
            self.narrator.step(f"Making PostgreSQL data directories: {_names([process.name for process in missing])}")
            await self.servers.initialise(missing)
            self.narrator.done(f"PostgreSQL data directories made: {_names([process.name for process in missing])}")
        if self.servers.processes:
            self.narrator.step(f"Starting PostgreSQL {self.servers.binaries.version}: {names}")
            for note in await self.servers.start():
                self.narrator.note(note)
            self.narrator.done(f"PostgreSQL {self.servers.binaries.version} runs: {names}")
        self._write_state()

    async def _prepare_shards(self) -> None:
        """Those that are still joining are the agent's: nobody waits for them."""
        self.narrator.step("Checking the shards' databases")
        bucket_map = ensure_map(self.deployment)
        shards = [shard for shard in self.deployment.shards.values() if not self.deployment.joins(shard.id)]
        work = [prepare_shard(self.deployment, shard, bucket_map) for shard in shards]
        if self.events:
            work.append(self._prepare_read())
        ran = 0
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            ran += len(result)
        count = f"{len(shards)} shards ready" if len(shards) > 1 else "1 shard ready"
        self.narrator.done(count + (f", {ran} migrations applied" if ran else ""))

    async def _prepare_read(self) -> list[Migration]:
        """If it is somebody else's and away, only a first start fails; later, users are served and searches wait."""
        try:
            return await prepare_read(self.deployment)
        except ReadDatabaseAway as away:
            if self.deployment.read_dsn is None or not self.deployment.record.born:
                raise
            self.narrator.note(f"{away.detail}; users are served, searches wait for it")
            return []

    async def _start_bus(self) -> None:
        if self.events is None:
            self.deployment.write_bus(None)
            return
        self.narrator.step("Starting the event bus")
        await self.events.start_bus()
        ours = self.events.server
        self.narrator.done(f"Event bus runs: {ours.url}" if ours else "Event bus: the one that is configured")

    async def _keep(self, stopping: "asyncio.Task[bool]") -> None:
        children: list[Child] = [*(self.servers.processes if self.servers else ())]
        if self.gateway:
            children.append(self.gateway)
        if self.events:
            children += self.events.children
        if self.control:
            children += self.control.nodes
        for child in children:
            self._keep_child(child)
        if self.agent:
            self._own("agent", self.agent.run())
        either: list[asyncio.Future[Any]] = [stopping, self._defect]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._defect.done():
            self._defect.result()

    def _keep_child(self, child: Child) -> None:
        if child.name not in self._keepers:
            self._own(child.name, keep_running(child, self._note))

    def _own(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do this until the end; if it ends before, by a defect, that must not pass silently."""
        task = self._keepers[name] = asyncio.create_task(work, name=name)

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) and not self._defect.done():
                self._defect.set_exception(error)

        task.add_done_callback(ended)

    # What the agent asks for

    async def start_server(self, record: ShardRecord) -> None:
        """Have the shard's server run, and keep it running."""
        if self.servers is None or record.directory is None:
            raise BadDeployment(f"shard {record.id} cannot be started here")
        if record.id not in self._keepers:
            self.narrator.note(f"shard {record.id} joins: its server is being started")
        self._keep_child(await self.servers.add(record.id, record.directory))
        self._write_state(ready=True)

    async def stop_server(self, record: ShardRecord) -> None:
        """Stop the shard's server, and no longer keep it running."""
        keeper = self._keepers.pop(record.id, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self.servers is not None:
            await self.servers.remove(record.id)
        self._write_state(ready=True)

    def _tell(self, text: str) -> None:
        self.narrator.note(text)

    def _note(self, text: str) -> None:
        before = self._ports()
        self._write_state(ready=True)
        self.narrator.note(text)
        after = self._ports()
        if any(after[name] != port for name, port in before.items() if name in after):
            self._restart_dependents()

    def _ports(self) -> dict[str, int | None]:
        ports: dict[str, int | None] = {name: server.port for name, server in self._state.shards.items()}
        return ports | {"bus": self._state.bus.port if self._state.bus else None}

    def _restart_dependents(self) -> None:
        """They hold addresses that are no longer right; their keepers start them again."""
        if self.events:
            self.events.write_settings()
            self.events.kill_processes()
        if self.gateway:
            self.gateway.kill()

    async def _stop(self) -> None:
        if self.gateway and self.gateway.pid is not None:
            self.narrator.step("Stopping the gateway")
            await self.gateway.stop()
            self.narrator.done("Gateway stopped")
        if self.events:
            await self.events.stop_processes()
        if self.control and any(node.pid for node in self.control.nodes):
            self.narrator.step("Stopping the control plane")
            await self.control.stop()
            self.narrator.done("Control plane stopped")
        if self.servers and any(process.pid for process in self.servers.processes):
            self.narrator.step("Stopping PostgreSQL")
            await self.servers.stop()
            self.narrator.done("PostgreSQL stopped")
        if self.events:
            await self.events.stop_bus()
        self._state = structs.replace(self._state, pid=None, ready=False)
        self._write_state()

    def _write_state(self, *, ready: bool = False) -> None:
        self._state = structs.replace(self._state, ready=ready)
        if self.servers:
            shards = {process.name: process.running_state() for process in self.servers.processes}
            self._state = structs.replace(self._state, shards=shards)
        if self.gateway and self.gateway.port:
            self._state = structs.replace(self._state, gateway=self.gateway.running_state())
        if self.events:
            processes = {process.name: process.running_state() for process in self.events.processes}
            bus = self.events.server.running_state() if self.events.server else None
            self._state = structs.replace(self._state, bus=bus, processes=processes)
        else:
            self._state = structs.replace(self._state, bus=None, processes={})
        if self.control:
            self._state = structs.replace(self._state, control=self.control.states())
        write_state(self.deployment.state_path, self._state)


def _names(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 8 else f"{names[0]} … {names[-1]}"


class _OnSignals:
    """Within the block, Ctrl-C and a request to terminate call `act` instead of ending the process."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._act)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
