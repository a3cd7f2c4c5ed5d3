"""How long a cluster cannot write after its leader was killed, over many kills.

Clients write all the time, each at a node of its own and at the next one when that is lost. The leader is killed with
SIGKILL; what counts is the time from the last successful write before a success was possible again, that is the
longest silence over all clients around the kill. Then the dead node is started again, and the next round begins when
it follows.
"""

import asyncio
import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError
from denizen.raft.kv.local_cluster import LocalCluster
from denizen.raft.kv.up import node_rows

_WRITERS = 6
_DEADLINE_S = 30.0
_SETTLED_S = 0.25


def measure_failovers(directory: Path, kills: int, report: Any) -> list[float]:
    """Kill the leader so many times; each silence in milliseconds, which `report` is told as it comes."""
    return asyncio.run(_measure(directory, kills, report))


async def _measure(directory: Path, kills: int, report: Any) -> list[float]:
    silences: list[float] = []
    moments: list[float] = []
    with LocalCluster(directory, 3) as cluster:
        cluster.start()
        async with KeyValueClient(cluster.endpoints, cluster.token, try_s=1.0) as client:
            writers = [asyncio.create_task(_write(cluster, number, moments)) for number in range(_WRITERS)]
            try:
                for _ in range(kills):
                    leader = await _settled_leader(client)
                    silences.append(await _kill(cluster, leader, moments))
                    report(silences[-1])
                    cluster.start(leader)
            finally:
                for writer in writers:
                    writer.cancel()
                await asyncio.gather(*writers, return_exceptions=True)
    return silences


async def _kill(cluster: LocalCluster, leader: int, moments: list[float]) -> float:
    """Kill the leader; return the longest silence in milliseconds from then until writes flow again."""
    del moments[:-1]
    killed = time.perf_counter()
    cluster.kill(leader)
    deadline = killed + _DEADLINE_S
    while sum(at > killed + 0.05 for at in moments) < 20:  # answers on their way when it died do not count
        if time.perf_counter() > deadline:
            raise TimeoutError(f"no write succeeded for {_DEADLINE_S:.0f} s after a kill")
        await asyncio.sleep(0.02)
    points = sorted([killed, *(at for at in moments if at >= killed)])
    return max(later - earlier for earlier, later in itertools.pairwise(points)) * 1e3


async def _write(cluster: LocalCluster, number: int, moments: list[float]) -> None:
    turn = number % len(cluster.endpoints)
    endpoints = cluster.endpoints[turn:] + cluster.endpoints[:turn]
    async with KeyValueClient(endpoints, cluster.token, timeout_s=30.0, try_s=1.0) as client:
        while True:
            with contextlib.suppress(KeyValueError):
                await client.put(f"writer/{number}", "x" * 64)
                moments.append(time.perf_counter())
            await asyncio.sleep(0.002)


async def _settled_leader(client: KeyValueClient) -> int:
    """Wait until all three nodes have followed one leader for a moment, all having caught up."""
    deadline = time.perf_counter() + _DEADLINE_S
    since, known = time.perf_counter(), 0
    while True:
        rows = [row for row in await node_rows(client) if "error" not in row]
        leaders = {row["leader"] for row in rows}
        near = len(rows) == 3 and max(row["commit"] for row in rows) - min(row["applied"] for row in rows) < 1_000
        leader = leaders.pop() if near and len(leaders) == 1 else None
        if leader is None or leader != known:
            since, known = time.perf_counter(), leader or 0
        elif time.perf_counter() - since > _SETTLED_S:
            return known
        if time.perf_counter() > deadline:
            raise TimeoutError(f"no settled leader for {_DEADLINE_S:.0f} s")
        await asyncio.sleep(0.03)
