"""Clusters in one process for tests: nodes on real sockets and directories, and links between them that can be cut."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from denizen.raft import Node, Settings
from denizen.raft.wal import Disk

SETTINGS = Settings(secret=b"the tests' secret", election_ms=150, propose_s=15)

PATIENT = replace(SETTINGS, election_ms=1500, heartbeat_ms=100)
"""For tests in which no election may happen, however loaded the machine is."""


class Recorder:
    """A state machine that remembers every command; results are how many there are."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, index: int, command: bytes) -> Any:
        if command == b"refuse me":
            raise ValueError("refused, as it asked for")
        if command.startswith(b"answer bytes "):
            return b"y" * int(command.removeprefix(b"answer bytes "))
        if command == b"answer an object":
            return object()
        self.commands.append(command)
        return len(self.commands)

    def snapshot(self) -> bytes:
        return b"\n".join(self.commands)

    def restore(self, snapshot: bytes) -> None:
        self.commands = snapshot.split(b"\n") if snapshot else []


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


async def eventually(condition: Callable[[], object], timeout_s: float = 30, what: str = "") -> None:
    """Wait for a condition; fail after a while."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what or condition}") from None


class Wire:
    """A TCP proxy for the connections from one node to another; cut, it is silent: nothing passes, nothing closes."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.split(":")
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.get_running_loop().create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Cluster:
    """Some nodes; `async with Cluster(tmp_path, 3) as cluster`."""

    def __init__(self, directory: Path, count: int, settings: Settings = SETTINGS, *, wires: bool = False) -> None:
        self.directory, self.settings = directory, settings
        self.addresses = {id: f"127.0.0.1:{port}" for id, port in enumerate(free_ports(count), 1)}
        self.machines: dict[int, Recorder] = {}
        self.nodes: dict[int, Node] = {}
        self.disks: dict[int, Disk] = {}
        self._wires: dict[tuple[int, int], Wire] = {}
        self._wired = wires

    async def __aenter__(self) -> Self:
        if self._wired:
            for one in self.addresses:
                for other in self.addresses:
                    if one != other:
                        self._wires[one, other] = wire = Wire(self.addresses[other])
                        await wire.start()
        await asyncio.gather(*(self.start(id) for id in self.addresses))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))
        await asyncio.gather(*(wire.stop() for wire in self._wires.values()))

    def peers(self, id: int) -> dict[int, str]:
        """The addresses as node `id` is to use them: its own, and a wire to each other."""
        return {
            other: self._wires[id, other].address if (id, other) in self._wires else address
            for other, address in self.addresses.items()
        }

    async def start(self, id: int, **options: Any) -> Node:
        """Start a node on its directory, with an empty state machine."""
        self.machines[id] = Recorder()
        peers = options.pop("peers", self.peers(id))
        node = Node(
            id, self.directory / str(id), peers, self.machines[id], self.settings, disk=self.disks.get(id), **options
        )
        self.nodes[id] = node
        await node.start()
        return node

    async def join(self) -> int:
        """Start one more node, with an empty directory, that waits to be added; its id."""
        id = max(self.addresses) + 1
        self.addresses[id] = f"127.0.0.1:{free_ports(1)[0]}"
        await self.start(id, join=True)
        return id

    async def stop(self, id: int) -> None:
        await self.nodes[id].stop()

    async def leader(self, among: set[int] | None = None) -> Node:
        """The leader that a majority of the running ones agrees on, waiting for it."""
        found: list[Node] = []

        def agreed() -> bool:
            running = [node for node in self.nodes.values() if node.is_running and node.status().role != "outsider"]
            running = [node for node in running if among is None or node.id in among]
            leaders = [node for node in running if node.is_leader and all(o.leader == node.id for o in running)]
            found[:] = leaders
            return len(leaders) == 1

        await eventually(agreed, what="one leader known to all")
        return found[0]

    async def follower(self) -> Node:
        """A running follower."""
        leader = await self.leader()
        return next(node for node in self.nodes.values() if node is not leader and node.is_running)

    def cut(self, ones: set[int], others: set[int], *, one_way: bool = False) -> None:
        """Let nothing pass between two groups; `one_way`: only from the first to the second."""
        for (one, other), wire in self._wires.items():
            if (one in ones and other in others) or (not one_way and one in others and other in ones):
                wire.cut()

    def heal(self) -> None:
        for wire in self._wires.values():
            wire.heal()

    async def converge(self, commands: list[bytes] | None = None) -> None:
        """Wait until all running nodes have applied the same commands (and these)."""

        def same() -> bool:
            states = [self.machines[id].commands for id, node in self.nodes.items() if node.is_running]
            return all(state == states[0] for state in states) and (commands is None or states[0] == commands)

        await eventually(
            same, what=f"the same commands everywhere: {[len(m.commands) for m in self.machines.values()]}"
        )
