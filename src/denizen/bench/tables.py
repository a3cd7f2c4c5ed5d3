"""Why the tables of a shard are shared by its buckets and not partitioned by them: the measurement.

The same groups of rows, each for a random bucket, are inserted into one table with `bucket` leading its key, and into
one with a partition for each of the shard's buckets; then one bucket is removed from each.
"""

import asyncio
import random
import time

import asyncpg
from rich.console import Console

from denizen.bench.report import Figure, Report, publish, ratio
from denizen.testing.postgres import throwaway_server

BUCKETS = 1024
GROUP = 64
_COLUMNS = "bucket smallint not null, sequence bigint not null, data bytea not null, primary key (bucket, sequence)"
_INSERT = "insert into {table} select * from unnest($1::smallint[], $2::bigint[], $3::bytea[])"


async def _fill(connection: asyncpg.Connection, table: str, groups: int) -> float:
    """Rows per second of inserting groups; one transaction each."""
    chooser = random.Random(1)  # noqa: S311 - a workload
    insert = await connection.prepare(_INSERT.format(table=table))
    data = [bytes(150)] * GROUP
    started = time.perf_counter()
    for number in range(groups):
        buckets = [chooser.randrange(BUCKETS) for _ in range(GROUP)]
        await insert.fetch(buckets, range(number * GROUP, (number + 1) * GROUP), data)
    return groups * GROUP / (time.perf_counter() - started)


async def _measure(arguments: dict[str, object], rounds: int, groups: int) -> dict[str, list[float]]:
    connection = await asyncpg.connect(**arguments)
    results: dict[str, list[float]] = {"shared": [], "partitioned": [], "delete": [], "drop": []}
    for number in range(rounds):
        Console(stderr=True).print(f"round {number + 1} of {rounds}")
        await connection.execute("drop table if exists shared; drop table if exists partitioned")
        await connection.execute(f"create table shared ({_COLUMNS})")
        await connection.execute(f"create table partitioned ({_COLUMNS}) partition by list (bucket)")
        for bucket in range(BUCKETS):
            await connection.execute(f"create table p{bucket} partition of partitioned for values in ({bucket})")
        for table in ("shared", "partitioned"):
            await _fill(connection, table, 20)  # warm up
            await connection.execute(f"truncate {table}")
            results[table].append(await _fill(connection, table, groups))
        for what, statement in (("delete", "delete from shared where bucket = 7"), ("drop", "drop table p7")):
            started = time.perf_counter()
            await connection.execute(statement)
            results[what].append((time.perf_counter() - started) * 1e3)
    await connection.close()
    return results


def run(*, rounds: int = 3, groups: int = 1000) -> Report:
    """Measure and publish; about ten seconds a round."""
    with throwaway_server(settings={"max_locks_per_transaction": "4096"}) as server:
        results = asyncio.run(_measure(server.create_database().connect_args, rounds, groups))
    figures = [
        Figure("insert groups of 64, shared table", tuple(results["shared"]), "rows/s"),
        Figure("insert groups of 64, one partition per bucket", tuple(results["partitioned"]), "rows/s"),
        ratio("shared ÷ partitioned", results["shared"], results["partitioned"]),
        Figure("remove a bucket, shared table (delete)", tuple(results["delete"]), "ms"),
        Figure("remove a bucket, partitioned (drop)", tuple(results["drop"]), "ms"),
    ]
    return publish("tables", figures, {"buckets": BUCKETS, "group": GROUP})
