"""The event plane as children of the supervisor: the NATS server, and the processes that feed it and live on it.

They come after the shards and never before them: a deployment whose event plane is down still serves its users. How
to reach the bus is written to `secrets/bus.json`, where every other process of the deployment reads it.
"""

import os
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from denizen import limits
from denizen.bus.server import NatsPlan, NatsServer
from denizen.bus.settings import BusSettings
from denizen.deployment.command_process import CommandProcess
from denizen.deployment.config import BusSection
from denizen.deployment.keeping import Child
from denizen.deployment.layout import Deployment
from denizen.deployment.state import ProcessState
from denizen.deployment.waiting import until
from denizen.errors import BadDeployment

# Each is `denizen <name> --data DIR`, started in this order and stopped in the reverse.
PROCESSES = ("relay", "projector")


class BusServer(NatsServer):
    """Our NATS server under supervision."""

    def __init__(self, plan: NatsPlan) -> None:
        super().__init__(plan)
        self.restarts = 0

    async def launch(self) -> None:
        """Start the server and wait until it serves. Raises `BadDeployment` with its log if it does not."""
        self.start()
        if not await until(self.check_ready, limits.bus_start_s):
            raise BadDeployment(f"the NATS server is not ready after {limits.bus_start_s:.0f} s:\n{self.said()}")

    def running_state(self) -> ProcessState:
        """Return what other processes need to know."""
        return ProcessState(pid=self.pid, restarts=self.restarts, port=self.plan.port)


class BackgroundProcess(CommandProcess):
    """`denizen <name>` on the deployment's directory; it needs no port, and nobody waits for it."""

    async def launch(self) -> None:
        """Start the process."""
        _step_back(self._begin(self.name))

    async def stop(self) -> None:
        """Ask the process to end; kill it when the time for that is over."""
        await self._end(limits.bus_stop_s)

    def running_state(self) -> ProcessState:
        """Return what other processes need to know."""
        return ProcessState(pid=self.pid, restarts=self.restarts)


def _step_back(pid: int) -> None:
    """Let this process give way to others. Linux weighs whole sessions too, each process of ours being one."""
    os.setpriority(os.PRIO_PROCESS, pid, limits.event_plane_niceness)
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(limits.event_plane_niceness))


class EventPlane:
    """All of it, started and stopped as the supervisor says."""

    def __init__(self, deployment: Deployment, config: BusSection) -> None:
        self._deployment = deployment
        self._config = config
        self.server = None if config.servers else BusServer(self._plan())
        self.processes = [BackgroundProcess(name, deployment) for name in PROCESSES]

    @property
    def children(self) -> list[Child]:
        """Everything that is to be kept running."""
        return [*([self.server] if self.server else []), *self.processes]

    async def start_bus(self) -> None:
        """Start the server, unless others run it, and say where it is."""
        if self.server is not None:
            await self.server.launch()
        self.write_settings()

    async def start_processes(self) -> None:
        """Start what needs shards and bus."""
        for process in self.processes:
            await process.launch()

    def write_settings(self) -> None:
        """Write down how the bus is reached now."""
        self._deployment.write_bus(self._settings())

    async def stop_processes(self) -> None:
        """Stop everything but the server."""
        for process in reversed(self.processes):
            await process.stop()

    async def stop_bus(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.begin_stop()
            await until(lambda: self.server is None or self.server.pid is None, limits.bus_stop_s)
            self.server.stop(0)

    def kill_processes(self) -> None:
        """End everything but the server at once; what is kept running begins again with the addresses of now."""
        for process in self.processes:
            process.kill()

    def _plan(self) -> NatsPlan:
        last = self._deployment.state().bus
        return NatsPlan(
            data=self._deployment.directory / "bus",
            log=self._deployment.logs / "nats.log",
            password=self._deployment.bus_password(),
            port=last.port if last and last.port else 0,
            retention_s=self._config.retention_s,
            retention_bytes=self._config.retention_bytes,
        )

    def _settings(self) -> BusSettings:
        if self.server is not None:
            return structs.replace(self.server.settings(), give_way_s=self._config.give_way_s)
        return BusSettings(
            self._config.servers,
            retention_s=self._config.retention_s,
            retention_bytes=self._config.retention_bytes,
            replicas=self._config.replicas,
            give_way_s=self._config.give_way_s,
        )
