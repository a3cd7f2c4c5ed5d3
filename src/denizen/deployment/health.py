"""How a deployment is now: asked of its processes, not read from files.

The lock tells whether the supervisor lives, each database answers a query, the
gateway an HTTP request.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.bus.server import has_jetstream
from denizen.control.wire import NodeStatus
from denizen.deployment.control_access import client_of
from denizen.deployment.gateway import answers_http
from denizen.deployment.layout import Deployment, ShardServer
from denizen.deployment.lock import holder
from denizen.deployment.read_health import ReadHealth, ask_read, problem
from denizen.deployment.state import RunState
from denizen.processes.children import lives
from denizen.sharding.bucket_map import counts, read_map

FIGURES = """
SELECT current_setting('server_version') AS version,
       pg_database_size(current_database()) AS bytes,
       (SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()) AS sessions,
       (SELECT max(version) FROM denizen.schema_migrations) AS schema
"""


class ShardHealth(Struct, frozen=True):
    """One shard. `state` is "up", or "down" with a `problem`."""

    id: str
    state: str
    managed: bool
    buckets: int
    problem: str | None = None
    version: str | None = None
    schema: int | None = None
    bytes: int | None = None
    sessions: int | None = None
    port: int | None = None
    pid: int | None = None
    restarts: int = 0


class GatewayHealth(Struct, frozen=True):
    """The gateway that the supervisor runs."""

    state: str
    url: str
    pid: int | None = None
    restarts: int = 0


class ProcessHealth(Struct, frozen=True):
    """A process of the event plane. `state` is "up" or "down"."""

    name: str
    state: str
    pid: int | None = None
    restarts: int = 0


class DeploymentHealth(Struct, frozen=True):
    """A whole deployment. `state`: "running", "starting", "degraded" (runs, but something is down) or "stopped"."""

    state: str
    id: str
    data: str
    pid: int | None
    started_at: datetime | None
    uptime_s: float | None
    shards: tuple[ShardHealth, ...]
    gateway: GatewayHealth | None
    processes: tuple[ProcessHealth, ...] = ()
    control: tuple[NodeStatus, ...] = ()  # the voters of the control plane
    read: ReadHealth | None = None


async def examine(deployment: Deployment) -> DeploymentHealth:
    """Ask every part of the deployment how it is, side by side; takes a few seconds at most."""
    pid = holder(deployment.lock_path)
    state = deployment.state()
    buckets = counts(read_map(deployment.map_path)) if deployment.map_path.exists() else {}
    shards = await asyncio.gather(
        *(_ask_shard(deployment, shard, buckets.get(shard.id, 0)) for shard in deployment.shards.values())
    )
    read = await ask_read(deployment) if "projector" in state.processes else None
    gateway = None
    if state.gateway is not None:
        answers = await answers_http(state.gateway)
        running = state.gateway.pid if pid else None
        gateway = GatewayHealth("up" if answers else "down", state.gateway.url, running, state.gateway.restarts)
    processes = _processes(state) if pid else ()
    control = await client_of(deployment).status() if pid and state.control and state.gateway else []
    states = {shard.state for shard in shards} | {process.state for process in processes}
    states |= {"down" for node in control if node.problem is not None or node.leader is None}
    whole = states <= {"up"} and (read is None or read.whole) and (gateway is None or gateway.state == "up")
    if pid is None:
        word = "stopped"
    elif not state.ready:
        word = "starting"
    else:
        word = "running" if whole else "degraded"
    started = state.started_at if pid else None
    return DeploymentHealth(
        state=word,
        id=str(deployment.id),
        data=str(deployment.directory),
        pid=pid,
        started_at=started,
        uptime_s=round((datetime.now(UTC) - started).total_seconds(), 1) if started else None,
        shards=tuple(shards),
        gateway=gateway,
        processes=processes,
        control=tuple(control),
        read=read,
    )


def _processes(state: RunState) -> tuple[ProcessHealth, ...]:
    """The event plane's processes: the bus must greet, the others must live."""
    known = {**({"nats": state.bus} if state.bus else {}), **state.processes}
    return tuple(
        ProcessHealth(
            name,
            "up" if (has_jetstream(process.port) if process.port else lives(process.pid)) else "down",
            process.pid,
            process.restarts,
        )
        for name, process in known.items()
    )


async def _ask_shard(deployment: Deployment, shard: ShardServer, buckets: int) -> ShardHealth:
    facts: dict[str, Any] = {"id": shard.id, "managed": shard.managed, "buckets": buckets}
    known = deployment.state().shards.get(shard.id)
    if known is not None:
        facts |= {"port": known.port, "pid": known.pid, "restarts": known.restarts}
    try:
        async with asyncio.timeout(limits.probe_s):
            connection = await asyncpg.connect(**shard.connect_args)
            try:
                figures = await connection.fetchrow(FIGURES)
            finally:
                await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return ShardHealth(state="down", problem=problem(error, shard.managed), **(facts | {"pid": None}))
    return ShardHealth(state="up", **facts, **dict(figures))
