"""How fast is an import, against a raw binary COPY of exactly the rows that it made?

Each run makes a fresh deployment, imports generated people with the real command, copies the resulting rows out to
files, and copies them back into empty tables with the same indexes on the same servers, all servers at once. Both are
timed by the clock and by the processor time of the servers, for a busy machine stretches the first. Beside the import
somebody signs up twenty times a second, and waits for the import's locks like anybody else. Only the shards run: relays
and projectors would follow the import, and still be at it during the COPY. Both find write-ahead log files that can be
used again, as on any server that is older than some minutes: making new ones costs about a tenth of the time.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import asyncpg
from msgspec import Struct

from denizen.bench.online import online_writer
from denizen.bench.people import write_people
from denizen.bench.processes import memory_of_tree, processor_seconds_of_servers
from denizen.bench.report import Figure, Report, percentile, publish, ratio
from denizen.deployment.layout import Deployment
from denizen.testing.deployment import throwaway_deployment

TABLES = ("events", "users", "login_names")
MEMORY_POLL_S = 1.0  # to look costs processor time, which the import is not to pay for
RATIO_MIN = 0.3


class Run(Struct, frozen=True):
    """One alternation."""

    import_s: float
    copy_s: float
    import_cpu_s: float
    copy_cpu_s: float
    client_cpu_s: float
    memory_mib: float
    online_p50_ms: float
    online_p99_ms: float


def run(*, rows: int = 1_000_000, runs: int = 3, shards: int = 4, workers: int | None = None) -> Report:
    """Measure and publish; the path of the figures."""
    with tempfile.TemporaryDirectory(prefix="denizen-bench-") as directory:
        people = Path(directory) / "people.ndjson"
        write_people(people, rows)
        results = [_alternate(people, shards, workers) for _ in range(runs)]
    return publish("import", _figures(rows, results), {"rows": rows, "shards": shards})


def _figures(rows: int, results: list[Run]) -> list[Figure]:
    imports, copies = [rows / each.import_s for each in results], [rows / each.copy_s for each in results]

    def plain(what: str, field: str, unit: str) -> Figure:
        return Figure(what, tuple(getattr(each, field) for each in results), unit)

    return [
        Figure("import", tuple(imports), "rows/s"),
        Figure("raw COPY of the same rows", tuple(copies), "rows/s"),
        ratio("import ÷ raw COPY", imports, copies, RATIO_MIN),
        plain("processor time of the import, clients", "client_cpu_s", "s"),
        plain("processor time of the import, servers", "import_cpu_s", "s"),
        plain("processor time of the COPY, servers", "copy_cpu_s", "s"),
        plain("memory of the import's clients", "memory_mib", "MiB"),
        plain("sign-ups beside, 50th percentile", "online_p50_ms", "ms"),
        plain("sign-ups beside, 99th percentile", "online_p99_ms", "ms"),
    ]


def _alternate(people: Path, shards: int, workers: int | None) -> Run:
    with throwaway_deployment(shards=shards, arguments=["--no-gateway"], configuration="") as running:
        deployment = running.deployment
        data = str(running.data)
        asyncio.run(_on_all(deployment, _USE_LOG, "checkpoint"))
        before = processor_seconds_of_servers(data)
        with online_writer(deployment) as latencies:
            import_s, client_cpu_s, memory = _import(people, running.data, workers)
        between = processor_seconds_of_servers(data)
        files = running.directory / "copied"
        files.mkdir()
        asyncio.run(_copy_out(deployment, files))
        asyncio.run(_on_all(deployment, *_EMPTY_TABLES, "checkpoint"))
        start_cpu = processor_seconds_of_servers(data)
        copy_s = asyncio.run(_copy_in(deployment, files))
        return Run(
            import_s,
            copy_s,
            between - before,
            processor_seconds_of_servers(data) - start_cpu,
            client_cpu_s,
            memory,
            percentile(latencies, 50),
            percentile(latencies, 99),
        )


def _import(people: Path, data: Path, workers: int | None) -> tuple[float, float, float]:
    """Wall time, processor time and peak memory of the command with all its processes."""
    command = [sys.executable, "-P", "-m", "denizen", "import", str(people), "--data", str(data), "--json"]
    if workers is not None:
        command += ["--workers", str(workers)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], memory_of_tree(process.pid))
            time.sleep(MEMORY_POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - began
    watcher.join()
    if process.returncode != 0:
        raise RuntimeError(f"the import ended with {process.returncode}: {said.decode()}")
    summary = json.loads(said)
    return seconds, summary["cpu_seconds"], peak[0] / (1 << 20)


_USE_LOG = "select pg_logical_emit_message(false, 'bench', repeat('x', 1 << 20)) from generate_series(1, 600)"
_EMPTY_TABLES = (
    "drop schema if exists raw cascade",
    "create schema raw",
    *(f"create table raw.{table} (like denizen.{table} including all)" for table in TABLES),
)


async def _on_all(deployment: Deployment, *statements: str) -> None:
    for shard in deployment.shards.values():
        connection = await asyncpg.connect(**shard.connect_args)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


async def _copy_out(deployment: Deployment, directory: Path) -> None:
    async def one(shard_id: str, arguments: dict[str, object]) -> None:
        connection = await asyncpg.connect(**arguments)
        try:
            for table in TABLES:
                await connection.copy_from_table(
                    table, schema_name="denizen", output=directory / f"{shard_id}.{table}", format="binary"
                )
        finally:
            await connection.close()

    await asyncio.gather(*(one(shard.id, shard.connect_args) for shard in deployment.shards.values()))


async def _copy_in(deployment: Deployment, directory: Path) -> float:
    """One connection a server, all at once; seconds."""
    connections = {shard.id: await asyncpg.connect(**shard.connect_args) for shard in deployment.shards.values()}

    async def one(shard_id: str, connection: asyncpg.Connection) -> None:
        for table in TABLES:
            await connection.copy_to_table(
                table, schema_name="raw", source=directory / f"{shard_id}.{table}", format="binary"
            )

    began = time.monotonic()
    await asyncio.gather(*(one(*item) for item in connections.items()))
    seconds = time.monotonic() - began
    for connection in connections.values():
        await connection.close()
    return seconds
