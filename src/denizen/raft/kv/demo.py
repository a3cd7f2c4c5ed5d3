"""`make demo-raft`: a cluster that loses its leader under load, with proof that nothing was lost or stale.

Three nodes are started as processes; real clients read and write over HTTP and write down what they see. The leader is
killed with SIGKILL; the service must go on without it. The dead node is started again and must hold the same store as
the others. At the end the clients' history is checked for linearizability. Any invariant that fails ends the demo with
exit code 1.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.local_cluster import LocalCluster
from denizen.raft.kv.up import node_rows, print_nodes
from denizen.raft.kv.workload import Workload
from denizen.raft.linearizability import check

_DEADLINE_S = 20.0
_FAILOVER_S_MAX = 5.0


class InvariantFailed(Exception):
    """Something that the demo promises did not come to pass."""


def run_demo(seconds: float = 6.0, *, rounds: int = 2) -> int:
    """Run the demo; return the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="denizen-raft-demo-") as directory:
        try:
            asyncio.run(_demo(Path(directory), seconds, rounds))
        except InvariantFailed as failure:
            print(f"\nFAILED: {failure}", file=sys.stderr)
            return 1
    _say(f"Done in {time.monotonic() - started:.1f} s: every invariant held.")
    return 0


async def _demo(directory: Path, seconds: float, rounds: int) -> None:
    with LocalCluster(directory, 3) as cluster:
        _say("Starting a cluster of three nodes, each a process with its own log, fsync on …")
        cluster.start()
        async with KeyValueClient(cluster.endpoints, cluster.token, try_s=1.0) as client:
            await _leader(client, cluster.ids)
            print_nodes(await node_rows(client))
            _say("Eight clients read, write, compare-and-set and delete five keys over HTTP, at every node …")
            load = Workload(cluster.endpoints, cluster.token, clients=8)
            async with load:
                for _ in range(rounds):
                    await _lose_leader(cluster, client, load, seconds / rounds)
            await _same_stores(cluster, client)
        _judge(load)


async def _lose_leader(cluster: LocalCluster, client: KeyValueClient, load: Workload, seconds: float) -> None:
    await _writes(load, 200)
    leader = await _leader(client, cluster.ids)
    _say(f"{len(load.history)} operations done. Node {leader} leads: kill -9 {cluster.pid(leader)}")
    killed = time.monotonic()
    cluster.kill(leader)
    survivors = [id for id in cluster.ids if id != leader]
    successor = await _leader(client, survivors)
    await _writes(load, 200)
    silence = load.longest_silence_s(killed, time.monotonic())
    _say(f"Node {successor} leads now; the longest time without a successful write was {silence * 1e3:.0f} ms.")
    if silence > _FAILOVER_S_MAX:
        raise InvariantFailed(f"no write succeeded for {silence:.1f} s, at most {_FAILOVER_S_MAX:.0f} s were allowed")
    await asyncio.sleep(max(0.0, seconds - (time.monotonic() - killed)))
    _say(f"Starting node {leader} again, with what its disk holds …")
    goal = (await client.status(cluster.endpoint(successor)))["commit"]
    cluster.start(leader)

    async def caught_up() -> bool:
        rows = {row["id"]: row for row in await node_rows(client) if "error" not in row}
        return leader in rows and rows[leader]["applied"] >= goal

    await _eventually(caught_up, f"node {leader} has applied what was committed when it came back (index {goal})")
    _say(f"Node {leader} is back and has caught up past index {goal}.")
    await _leader(client, cluster.ids)


async def _same_stores(cluster: LocalCluster, client: KeyValueClient) -> None:
    async def applied_alike() -> bool:
        rows = [row for row in await node_rows(client) if "error" not in row]
        return len(rows) == 3 and len({row["applied"] for row in rows}) == 1

    await _eventually(applied_alike, "all nodes have applied the same entries")
    everything = {"key": "", "prefix": True, "local": True}
    stores = [(await client.ask(url, "range", everything))["kvs"] for url in cluster.endpoints]
    if any(store != stores[0] for store in stores):
        raise InvariantFailed("the nodes applied the same entries and hold different stores")
    print_nodes(await node_rows(client))
    _say("All three nodes hold the same store.")


def _judge(load: Workload) -> None:
    started = time.monotonic()
    verdict = check(load.history)
    if not verdict.linearizable:
        raise InvariantFailed(f"the history is not linearizable: {verdict.explanation}")
    _say(
        f"History of {verdict.operations} operations on {verdict.keys} keys, {verdict.unknown} of them with unknown "
        f"outcome: linearizable (checked in {time.monotonic() - started:.1f} s)."
    )


async def _leader(client: KeyValueClient, among: list[int]) -> int:
    async def find() -> Any:
        rows = [row for row in await node_rows(client) if "error" not in row]
        leaders = [row["id"] for row in rows if row["role"] == "leader" and row["id"] in among]
        return next((id for id in leaders if sum(row["leader"] == id for row in rows) >= 2), None)

    return int(await _eventually(find, f"one of the nodes {among} leads"))


async def _writes(load: Workload, count: int) -> None:
    goal = len(load.writes) + count

    async def reached() -> bool:
        return len(load.writes) >= goal

    await _eventually(reached, f"{count} more writes succeed")


async def _eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        found = await condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise InvariantFailed(f"waited {_DEADLINE_S:.0f} s in vain until {what}")
        await asyncio.sleep(0.02)


def _say(text: str) -> None:
    print(text, flush=True)
