"""What a move must not leave behind, looked for in the tables of every server.

After the clean-up each server holds rows of its own buckets only, serves exactly the buckets that the map gives it, at
the map's epochs, and has the same tables as the others: no copy half made, no helper table, no slot, no open
transaction that was prepared. The tables are taken from the catalogue, so that a new one is looked at as well. The rows
of moves that have ended stay on purpose for a while: they refuse what comes late.
"""

import asyncio
from collections import Counter
from typing import Any

import asyncpg

from denizen.deployment.layout import Deployment
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import ShardId

_TABLES_OF_BUCKETS = """
select c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
where n.nspname = 'denizen' and c.relkind = 'r' and a.attname = 'bucket'
and c.relname not in ('buckets', 'bucket_moves')
order by 1
"""
_LIVE_MOVES = """
select bucket, state from denizen.bucket_moves where state not in ('cleaned', 'opened', 'aborted', 'past')
"""
_ALL_TABLES = """
select n.nspname || '.' || c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
order by 1
"""
_SERVED = "select bucket, epoch, state from denizen.buckets where state in ('open', 'fenced')"
_BETWEEN = "select bucket, state from denizen.buckets where state not in ('open', 'fenced', 'moved')"


async def leftovers(deployment: Deployment, bucket_map: BucketMap) -> list[str]:
    """Everything that is where it does not belong, in words; empty if all is clean."""
    shards = deployment.shards
    found = await asyncio.gather(*(_look_at(shard.connect_args, shard.id, bucket_map) for shard in shards.values()))
    problems = [problem for _, problems in found for problem in problems]
    servers_with = Counter(table for tables, _ in found for table in tables)
    lonely = sorted(table for table, servers in servers_with.items() if servers < len(found))
    if lonely:
        problems.append(f"tables that only some servers have: {', '.join(lonely)}")
    return problems


async def _look_at(arguments: dict[str, Any], shard: ShardId, bucket_map: BucketMap) -> tuple[list[str], list[str]]:
    owned = set(bucket_map.buckets_of(shard)) if shard in bucket_map.shards else set()
    connection = await asyncpg.connect(**arguments)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            problems = [
                *await _strange_rows(connection, shard, owned),
                *await _wrong_buckets(connection, shard, owned, bucket_map),
                *await _held(connection, shard),
            ]
            tables = [row[0] for row in await connection.fetch(_ALL_TABLES)]
    finally:
        await connection.close()
    return tables, problems


async def _strange_rows(connection: asyncpg.Connection, shard: ShardId, owned: set[Any]) -> list[str]:
    problems = []
    for (table,) in await connection.fetch(_TABLES_OF_BUCKETS):
        query = f"select bucket, count(*) from denizen.{table} where not bucket = any($1::smallint[]) group by bucket"  # noqa: S608
        for bucket, rows in await connection.fetch(query, list(owned)):
            problems.append(f"{shard} holds {rows} rows of bucket {bucket} in {table}, which it does not own")
    return problems


async def _wrong_buckets(
    connection: asyncpg.Connection, shard: ShardId, owned: set[Any], bucket_map: BucketMap
) -> list[str]:
    served = {bucket: (epoch, state) for bucket, epoch, state in await connection.fetch(_SERVED)}
    problems = [f"{shard} serves bucket {bucket}, which it does not own" for bucket in sorted(served.keys() - owned)]
    for bucket in sorted(owned):
        wanted = (bucket_map.epoch_of(bucket), "open")
        if served.get(bucket) != wanted:
            problems.append(f"bucket {bucket} of {shard} is {served.get(bucket)}, not {wanted}")
    for bucket, state in await connection.fetch(_BETWEEN):
        problems.append(f"bucket {bucket} of {shard} is left {state}")
    for bucket, state in await connection.fetch(_LIVE_MOVES):
        problems.append(f"a move of bucket {bucket} is left {state} on {shard}")
    return problems


async def _held(connection: asyncpg.Connection, shard: ShardId) -> list[str]:
    prepared = await connection.fetchval("select count(*) from pg_prepared_xacts")
    slots = await connection.fetchval("select count(*) from pg_replication_slots")
    return [f"{shard} has {prepared} prepared transactions and {slots} slots"] if prepared or slots else []
