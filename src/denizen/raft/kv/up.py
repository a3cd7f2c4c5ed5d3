"""`denizen raft up` and `status`: a cluster of processes in the foreground, and how its nodes look."""

import asyncio
import fcntl
import json
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from denizen.raft.errors import BadSettings
from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import KeyValueError
from denizen.raft.kv.local_cluster import LocalCluster, cannot_hold_a_cluster, checked_ports

NODES: Final = 3
FIRST_PORT: Final = 7100
_READY_S = 20.0


def run_cluster(directory: Path, nodes: int | None, first_port: int | None, *, as_json: bool) -> int:
    """Run a local cluster until Ctrl-C or SIGTERM; return the exit code. `None` is what it has, or the usual."""
    stop = {"asked": False}

    def ask(_number: int, _frame: object) -> None:
        stop["asked"] = True

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    try:
        with ExitStack() as held:
            cluster = _made(held, directory, nodes, first_port)
            cluster.start()
            return _run(cluster, stop, as_json=as_json)
    except (BadSettings, OSError) as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadSettings) else 1


def _made(held: ExitStack, directory: Path, nodes: int | None, first_port: int | None) -> LocalCluster:
    """Make the cluster, or find it as it was; raises `BadSettings` when it is another one, or runs already."""
    count = NODES if nodes is None else nodes
    port = FIRST_PORT if first_port is None else first_port
    try:
        if port and not (directory / "cluster.toml").exists():
            checked_ports(port, 2 * count)
        directory.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context((directory / "lock").open("ab"))
    except OSError as error:
        raise cannot_hold_a_cluster(directory, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadSettings(f"the cluster in {directory} runs already: use it, or choose another --data") from None
    found = (directory / "cluster.toml").exists()
    cluster = held.enter_context(LocalCluster(directory, count, first_port=port))
    if in_use := cluster.in_use():
        raise BadSettings(
            f"node {in_use[0]} of the cluster in {directory} runs already, perhaps left by a `denizen raft "
            "up` that was killed: end its process first"
        )
    if found and nodes not in {None, len(cluster.ids)}:
        raise BadSettings(
            f"the cluster in {directory} has {len(cluster.ids)} nodes, not {nodes}: leave --nodes out, or choose "
            "another --data for a new cluster"
        )
    if found and first_port and not cluster.endpoints[0].endswith(f":{first_port}"):
        raise BadSettings(
            f"the cluster in {directory} serves {cluster.endpoints[0]}: leave --port out, or choose another --data "
            "for a new cluster"
        )
    return cluster


def _run(cluster: LocalCluster, stop: dict[str, bool], *, as_json: bool) -> int:
    rows = asyncio.run(_ready(cluster, stop))
    if stop["asked"]:
        return 0
    if rows is None:
        _tell_failure(cluster)
        return 1
    _announce(cluster, rows, as_json=as_json)
    running = cluster.ids
    while not stop["asked"]:
        before, running = running, cluster.running()
        for id in sorted(set(before) - set(running)):
            print(
                f"denizen raft: node {id} has stopped (exit code {cluster.exit_code(id)}), {len(running)} of "
                f"{len(cluster.ids)} still run; its log is {cluster.log_path(id)}. To bring it back, end this with "
                "Ctrl-C and start the cluster again",
                file=sys.stderr,
            )
        if not running:
            print("denizen raft: every node has stopped; see their logs", file=sys.stderr)
            return 1
        time.sleep(0.2)
    return 0


def _tell_failure(cluster: LocalCluster) -> None:
    """Print why the cluster did not begin: the last words of nodes that ended, if there are such."""
    ended = sorted(set(cluster.ids) - set(cluster.running()))
    for id in ended:
        words = cluster.log(id).strip().rpartition("\n")[2].removeprefix("denizen raft: ")
        print(f"denizen raft: node {id} did not start: {words or cluster.exit_code(id)}", file=sys.stderr)
    if not ended:
        logs = ", ".join(str(cluster.log_path(id)) for id in cluster.ids)
        print(f"denizen raft: the nodes found no leader in {_READY_S:.0f} s; see {logs}", file=sys.stderr)


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
