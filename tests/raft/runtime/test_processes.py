"""Real processes, killed with SIGKILL and stopped with SIGSTOP under load: nothing acknowledged is lost or doubled."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from raft_cluster import eventually, free_ports

SCRIPT = Path(__file__).with_name("raft_node_process.py")


class Processes:
    """A cluster of processes and their control ports."""

    def __init__(self, directory: Path, count: int) -> None:
        ports = free_ports(2 * count)
        self.directory = directory
        self.peers = {id: f"127.0.0.1:{ports[id - 1]}" for id in range(1, count + 1)}
        self.control = {id: ports[count + id - 1] for id in range(1, count + 1)}
        self.running: dict[int, subprocess.Popen[str]] = {}

    def start(self, id: int) -> None:
        arguments = [str(id), str(self.directory / str(id)), str(self.control[id]), json.dumps(self.peers)]
        process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.running[id] = process

    def kill(self, id: int) -> None:
        process = self.running.pop(id)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    async def ask(self, id: int, request: str, timeout_s: float = 8) -> tuple[bool, str]:
        """Whether it was answered with ok, and the answer; no answer at all is an error too."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.control[id], limit=1 << 24)
                try:
                    writer.write(request.encode() + b"\n")
                    status, _, answer = (await reader.readline()).decode().strip().partition(" ")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            return False, str(error)
        return status == "ok", answer

    async def leader(self, among: set[int]) -> int:
        """The leader that all of these know."""
        while True:
            said = [await self.ask(id, "leader", 2) for id in sorted(among)]
            leaders = {answer for fine, answer in said if fine}
            if all(fine for fine, _ in said) and len(leaders) == 1 and int(min(leaders)) in among:
                return int(min(leaders))
            await asyncio.sleep(0.05)


@pytest.fixture
async def start(tmp_path) -> AsyncIterator:
    clusters: list[Processes] = []

    def begin(count: int) -> Processes:
        cluster = Processes(tmp_path, count)
        clusters.append(cluster)
        for id in cluster.peers:
            cluster.start(id)
        return cluster

    yield begin
    for cluster in clusters:
        for id in list(cluster.running):
            cluster.kill(id)


class Client:
    """Proposes numbered commands one after another through whichever node answers, each until its outcome is known."""

    def __init__(self, cluster: Processes, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.acknowledged: list[str] = []
        self.finish = False

    async def run(self) -> None:
        session = await self._until_known("open_session")
        number = 0
        while not self.finish:
            number += 1
            command = f"{self.name}.{number}"
            await self._until_known(f"propose_once {session} {number} {command}")
            self.acknowledged.append(command)

    async def _until_known(self, request: str) -> str:
        while True:
            for id in list(self.cluster.running):
                fine, answer = await self.cluster.ask(id, request, 3)
                if fine:
                    return answer
            await asyncio.sleep(0.02)


async def check(cluster: Processes, clients: list[Client]) -> None:
    """Every acknowledged command is there, each once, in its client's order, and all nodes agree."""
    states = set()
    for id in cluster.running:
        fine, answer = await cluster.ask(id, "read")
        assert fine, answer
        states.add(answer)
    assert len(states) == 1
    commands = states.pop().split(",")
    assert len(commands) == len(set(commands))
    for client in clients:
        assert len(client.acknowledged) > 5
        mine = [command for command in commands if command.startswith(client.name + ".")]
        assert mine[: len(client.acknowledged)] == client.acknowledged
        assert len(mine) <= len(client.acknowledged) + 1


@pytest.mark.parametrize("count", [3, 5])
async def test_leaders_killed_under_load_lose_and_double_nothing(start, count):
    cluster = start(count)
    clients = [Client(cluster, f"c{number}") for number in range(4)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    async with asyncio.timeout(90):
        for _ in range(2):
            leader = await cluster.leader(set(cluster.running))
            before = [len(client.acknowledged) for client in clients]
            cluster.kill(leader)
            await eventually(
                lambda: all(len(c.acknowledged) > b + 3 for c, b in zip(clients, before, strict=True))  # noqa: B023
            )
            cluster.start(leader)
        for client in clients:
            client.finish = True
        await asyncio.gather(*tasks)
        await check(cluster, clients)


async def test_a_leader_paused_past_its_lease_and_resumed_serves_nothing_stale(start):
    cluster = start(3)
    async with asyncio.timeout(90):
        paused = await cluster.leader({1, 2, 3})
        assert (await cluster.ask(paused, "propose before"))[0]
        cluster.running[paused].send_signal(signal.SIGSTOP)
        try:
            others = {1, 2, 3} - {paused}
            new = await cluster.leader(others)
            assert await cluster.ask(new, "propose after") == (True, "2")
        finally:
            cluster.running[paused].send_signal(signal.SIGCONT)
        assert await cluster.ask(paused, "read") == (True, "before,after")
        assert await cluster.ask(paused, "propose more") == (True, "3")


async def test_all_killed_at_once_come_back_with_everything_acknowledged(start):
    cluster = start(3)
    clients = [Client(cluster, f"c{number}") for number in range(3)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    async with asyncio.timeout(90):
        await eventually(lambda: all(len(client.acknowledged) > 10 for client in clients))
        for id in (1, 2, 3):
            cluster.kill(id)
        for id in (1, 2, 3):
            cluster.start(id)
        before = [len(client.acknowledged) for client in clients]
        await eventually(lambda: all(len(c.acknowledged) > b + 3 for c, b in zip(clients, before, strict=True)))
        for client in clients:
            client.finish = True
        await asyncio.gather(*tasks)
        await check(cluster, clients)
