"""`denizen status`: what runs, and how it is."""

import asyncio
import sys

import msgspec
from cyclopts import App
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.health import DeploymentHealth, ShardHealth, examine
from denizen.deployment.layout import Deployment
from denizen.deployment.read_health import ReadHealth

COLOURS = {
    "up": "green",
    "running": "green",
    "starting": "yellow",
    "degraded": "yellow",
    "down": "red",
    "stopped": "red",
}

app = App(
    name="status",
    help="Show what runs of a deployment, and how it is.",
    help_epilogue="""Every part is asked. The exit code is 0 if everything runs, 1 if not.

Examples:

    denizen status
    denizen status --data ./people --json
""",
    help_format="plaintext",
)


@app.default
def status(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Ask every part of the deployment and show the answers."""
    health = asyncio.run(examine(Deployment.load(data_directory(data))))
    if json:
        print(msgspec.json.encode(health).decode())
    else:
        _show(health)
    sys.exit(0 if health.state == "running" else 1)


def _show(health: DeploymentHealth) -> None:
    console = Console(highlight=False)
    since = f" for {_duration(health.uptime_s)}, pid {health.pid}" if health.pid and health.uptime_s is not None else ""
    console.print(f"Denizen is {_coloured(health.state)}{since}  [dim]{escape(health.data)}[/]", soft_wrap=True)
    if health.gateway:
        restarts = _restarts(health.gateway.restarts)
        console.print(f"Gateway {_coloured(health.gateway.state)} {health.gateway.url}{restarts}", soft_wrap=True)
    for process in health.processes:
        restarts = _restarts(process.restarts)
        console.print(f"{process.name.capitalize()} {_coloured(process.state)}{restarts}", soft_wrap=True)
    for node in health.control:
        if node.problem is not None:
            console.print(f"Control {node.id} {_coloured('down')} [dim]{escape(node.problem)}[/]", soft_wrap=True)
            continue
        facts = f"{node.role} of term {node.term}, leader {node.leader or 'unknown'}, commit {node.commit}"
        facts += f", applied {node.applied}, map {node.map_version}" + (", moves buckets" if node.executing else "")
        console.print(f"Control {node.id} {_coloured('up')} {facts}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("shard", "state", "buckets", "size", "sessions", "port", "pid", "restarts", "version", "schema"):
        table.add_column(column, justify="left" if column in ("shard", "state") else "right")
    for server in (*health.shards, *([health.read] if health.read else ())):
        table.add_row(*_row(server))
    console.print(table)
    for shard in health.shards:
        if shard.problem:
            console.print(f"[red]{shard.id}[/]: {escape(shard.problem)}", soft_wrap=True)
    if health.read:
        _show_read(console, health.read)


def _show_read(console: Console, read: ReadHealth) -> None:
    if read.problem:
        console.print(f"[red]{read.id}[/]: {escape(read.problem)}", soft_wrap=True)
    for each in read.projections:
        words = ["[green]live[/]" if each.live and each.state == "running" else f"[yellow]{each.state}[/]"]
        words += [] if each.lag_events is None else [f"{each.lag_events:,} events behind"]
        words += (
            [] if each.lag_ms_p99 is None else [f"visible after {each.lag_ms_p50:,.0f} ms, p99 {each.lag_ms_p99:,.0f}"]
        )
        words += [escape(each.reason)] if each.reason else []
        console.print(f"{each.projection} version {each.version}: {', '.join(words)}", soft_wrap=True)
    if read.parked:
        console.print(f"[red]{read.parked} parked streams[/]: see `denizen projections`")


def _row(shard: ShardHealth | ReadHealth) -> list[str]:
    size = f"{shard.bytes / (1 << 20):,.0f} MiB" if shard.bytes is not None else None
    buckets, schema = (shard.buckets, shard.schema) if isinstance(shard, ShardHealth) else (None, None)
    plain = (buckets, size, shard.sessions, shard.port, shard.pid, shard.restarts, shard.version, schema)
    return [shard.id, _coloured(shard.state), *("–" if value is None else str(value) for value in plain)]


def _restarts(count: int) -> str:
    return f", {count} restart{'s' if count > 1 else ''}" if count else ""


def _coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}[/]"


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{int(seconds)} s"
