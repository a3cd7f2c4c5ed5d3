"""The control plane as children of the supervisor: its voters, each a process `denizen control`.

They are the first to be started and the last but the servers to be stopped, and nobody waits for them: the data plane
serves with its last map without them. Each has two ports, one for the other voters and one for clients, that are
found once and then kept, for the voters tell each other where they are.
"""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress

from denizen import limits
from denizen.deployment.command_process import CommandProcess
from denizen.deployment.config import ControlSection
from denizen.deployment.control_access import client_of
from denizen.deployment.layout import Deployment
from denizen.deployment.state import ControlNodeState
from denizen.deployment.waiting import until
from denizen.errors import BadConfiguration
from denizen.postgres.server import HOST
from denizen.processes.children import command_of
from denizen.processes.ports import find_port, is_free


class ControlProcess(CommandProcess):
    """One voter under supervision."""

    def __init__(self, node: int, deployment: Deployment, move: Callable[["ControlProcess"], None]) -> None:
        """`move` gives the node other ports; it is called before a start if somebody else has taken one of its own."""
        super().__init__(f"control-{node}", deployment)
        self.node = node
        self.raft_port = self.port = 0
        self._move = move

    async def launch(self) -> None:
        """Start the process; it serves a moment later."""
        if not (is_free(self.raft_port) and is_free(self.port)):
            self._move(self)
        # Killed with us, not asked: what it promised is on its disk, and the next start needs its ports.
        self._begin("control", "--node", str(self.node), at_our_death=signal.SIGKILL)

    def running_state(self) -> ControlNodeState:
        """Return what other processes need to know."""
        return ControlNodeState(raft_port=self.raft_port, port=self.port, pid=self.pid, restarts=self.restarts)


class ControlPlane:
    """All voters, started and stopped together."""

    def __init__(self, deployment: Deployment, config: ControlSection, write_state: Callable[[], None]) -> None:
        """`write_state` writes down where the voters are; it is called before one of them is started.

        Raises `BadConfiguration` if the control plane was founded with another number of voters.
        """
        self._deployment = deployment
        self._write_state = write_state
        founded = len(list((deployment.directory / "control").glob("[0-9]*")))
        if founded not in (0, config.voters):
            raise BadConfiguration(
                f"control.voters = {config.voters}: the control plane in {deployment.directory} was founded with "
                f"{founded} voters; leave the number as it was",
                key="control.voters",
            )
        self.nodes = [ControlProcess(node, deployment, self._move) for node in range(1, config.voters + 1)]
        self.client = client_of(deployment)

    async def start(self) -> None:
        """Start every voter, without waiting for them."""
        self._deployment.control_secret(make=True)
        last = self._deployment.state().control
        await self._end_leftovers(process.pid for process in last.values() if process.pid is not None)
        for node in self.nodes:
            known = last.get(str(node.node))
            node.raft_port = find_port(known.raft_port if known else None, host=HOST, taken=self._ports())
            node.port = find_port(known.port if known else None, host=HOST, taken=self._ports())
        for node in self.nodes:
            directory = self._deployment.directory / "control" / str(node.node)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_state()
        for node in self.nodes:
            await node.launch()

    async def stop(self) -> None:
        """Stop every voter, side by side."""
        for node in self.nodes:
            node.begin_stop()
        await until(lambda: all(node.pid is None for node in self.nodes), limits.control_stop_s)
        for node in self.nodes:
            node.kill()
            node.wait()

    def states(self) -> dict[str, ControlNodeState]:
        """Where the voters are."""
        return {str(node.node): node.running_state() for node in self.nodes if node.port}

    async def _end_leftovers(self, pids: Iterable[int]) -> None:
        """A killed supervisor's voters, where the kernel did not end them: they hold directories and ports."""
        ours = f"denizen control --data {self._deployment.directory} "
        left = [pid for pid in pids if ours in command_of(pid)]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(ours in command_of(pid) for pid in left), limits.control_stop_s)

    def _ports(self) -> frozenset[int]:
        return frozenset(port for node in self.nodes for port in (node.raft_port, node.port) if port)

    def _move(self, moved: ControlProcess) -> None:
        """Somebody took this voter's ports: it gets others, and the other voters begin again to learn of it."""
        moved.raft_port = find_port(taken=self._ports())
        moved.port = find_port(taken=self._ports())
        self._write_state()
        for node in self.nodes:
            if node is not moved:
                node.kill()
