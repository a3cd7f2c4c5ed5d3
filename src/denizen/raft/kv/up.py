"""`denizen raft up` and `status`: a cluster of processes in the foreground, and how its nodes look."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError
from denizen.raft.kv.local_cluster import LocalCluster

_READY_S = 20.0


def run_cluster(directory: Path, nodes: int, first_port: int, *, as_json: bool) -> int:
    """Run a local cluster until Ctrl-C or SIGTERM; return the exit code."""
    stop = {"asked": False}

    def ask(_number: int, _frame: object) -> None:
        stop["asked"] = True

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    with LocalCluster(directory, nodes, first_port=first_port) as cluster:
        cluster.start()
        rows = asyncio.run(_ready(cluster, stop))
        if rows is None:
            for id in cluster.ids:
                print(f"node {id}: {cluster.log(id).strip()[-500:]}", file=sys.stderr)
            return 0 if stop["asked"] else 1
        _announce(cluster, rows, as_json=as_json)
        while not stop["asked"]:
            time.sleep(0.2)
            dead = set(cluster.ids) - set(cluster.running())
            if dead == set(cluster.ids):
                print("denizen raft: every node has stopped; see their logs", file=sys.stderr)
                return 1
    return 0


async def _ready(cluster: LocalCluster, stop: dict[str, bool]) -> list[dict[str, Any]] | None:
    """Wait until every node answers and knows the leader; None if that does not come to pass."""
    deadline = time.monotonic() + _READY_S
    async with KeyValueClient(cluster.endpoints, cluster.token) as client:
        while time.monotonic() < deadline and not stop["asked"]:
            rows = await node_rows(client)
            if all(row.get("leader") for row in rows):
                return rows
            if len(cluster.running()) < len(cluster.ids):
                return None
            await asyncio.sleep(0.05)
    return None


def _announce(cluster: LocalCluster, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        facts = {"endpoints": cluster.endpoints, "leader": rows[0]["leader"], "data": str(cluster.directory)}
        print(json.dumps(facts), flush=True)
        return
    print_nodes(rows)
    print(f"\nTry:  denizen raft put greeting hello --data {cluster.directory}")
    print(f"      denizen raft watch '' --prefix --data {cluster.directory}")
    print("Ctrl-C stops the cluster; its data stay.", flush=True)


async def node_rows(client: KeyValueClient) -> list[dict[str, Any]]:
    """Return what each node tells about itself; of one that does not answer, the error."""

    async def ask(url: str) -> dict[str, Any]:
        try:
            return {"url": url, **(await client.status(url))}
        except KeyValueError as error:
            return {"url": url, "error": str(error)}

    return list(await asyncio.gather(*map(ask, client.endpoints)))


def print_nodes(rows: list[dict[str, Any]]) -> None:
    """Print a table of nodes."""
    from rich.console import Console
    from rich.table import Table

    reasons: list[str] = []
    table = Table("node", "url", "role", "term", "leader", "applied", "revision", "keys", box=None)
    for row in rows:
        if "error" in row:
            table.add_row("?", row["url"], "[red]no answer[/red]")
            reasons.append(row["error"])
            continue
        store = row["store"]
        numbers = (row["term"], row["leader"], row["applied"], store["revision"], store["keys"])
        table.add_row(str(row["id"]), row["url"], row["role"], *map(str, numbers))
        reasons += [f"node {row['id']} does not reach node {id}: {why}" for id, why in row["unreachable"].items()]
    Console().print(table)
    for reason in reasons:
        print(reason)
