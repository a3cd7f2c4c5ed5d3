"""Control nodes of a test: real Raft nodes with real servers, on this loop, on ports of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from denizen.control.client import ControlClient
from denizen.control.node import ControlNode, NodePlan, Work
from denizen.control.server import ControlServer
from denizen.control.wire import client_token
from denizen.processes.ports import find_port

SECRET = b"a secret of the tests, long enough"
DEPLOYMENT = UUID(int=7)


class Cluster:
    """Some nodes, each of which can be stopped and started again."""

    def __init__(self, directory: Path, nodes: int, make_work: Callable[[ControlNode], Work] | None = None) -> None:
        self._directory = directory
        self._make_work = make_work
        ports: list[int] = []
        for _ in range(2 * nodes):
            ports.append(find_port(taken=frozenset(ports)))
        self.peers = {node: f"127.0.0.1:{ports[node - 1]}" for node in range(1, nodes + 1)}
        self.addresses = {node: f"127.0.0.1:{ports[nodes + node - 1]}" for node in self.peers}
        self.running: dict[int, tuple[ControlNode, ControlServer]] = {}

    def client(self, *, patience_s: float = 10.0, only: int | None = None) -> ControlClient:
        """A client of all nodes, or of one."""
        addresses = {node: address for node, address in self.addresses.items() if only in (None, node)}
        return ControlClient(lambda: addresses, lambda: client_token(SECRET), patience_s=patience_s)

    async def start(self, node: int) -> ControlNode:
        """Start one node on its directory."""
        plan = NodePlan(node, DEPLOYMENT, self._directory / str(node), self.peers, self.addresses[node], SECRET)
        running = ControlNode(plan, self._make_work)
        await running.start()
        server = ControlServer(running)
        await server.start()
        self.running[node] = (running, server)
        return running

    async def stop(self, node: int) -> None:
        """Stop one node in order."""
        running, server = self.running.pop(node)
        await server.stop()
        await running.stop()

    async def leader(self) -> int:
        """The id of the leader, as soon as there is one among those that run."""
        async with asyncio.timeout(15):
            while True:
                for id, (node, _) in self.running.items():
                    if node.is_leader:
                        return id
                await asyncio.sleep(0.01)


@asynccontextmanager
async def cluster(
    directory: Path, nodes: int = 3, make_work: Callable[[ControlNode], Work] | None = None
) -> AsyncIterator[Cluster]:
    """A running cluster, stopped at the end of the block."""
    running = Cluster(directory, nodes, make_work)
    try:
        await asyncio.gather(*map(running.start, running.peers))
        yield running
    finally:
        await asyncio.gather(*map(running.stop, list(running.running)))
