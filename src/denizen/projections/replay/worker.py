"""A worker of a replay: part after part, each in one transaction.

    claim a part → its events from the shards → fold in memory → COPY rows, checkpoints, "done" → commit

A worker that is killed leaves its part as it was; another one, or the next run, does it. What a shard has of a bucket
in one snapshot is a whole beginning of the bucket's log, so its last sequence is the checkpoint.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from denizen.bus.shards import Shards
from denizen.events.reading import event_of
from denizen.events.records import RecordedEvent
from denizen.invariants import invariant
from denizen.projections import registry
from denizen.projections.database import connect_writer
from denizen.projections.folding import Changes, by_stream, fold_streams
from denizen.projections.projection import Projection
from denizen.projections.replay import work
from denizen.projections.runner import write_changes
from denizen.projections.tables import SCHEMA, Kind
from denizen.sharding.ids import Bucket, ShardId

_EVENTS: Final = """
    select bucket, sequence, stream, version, type, schema, recorded_at, command_id, actor, correlation_id, data
    from denizen.events where bucket = any ($1) order by bucket, sequence
"""
_CHECKPOINTS: Final = """
    update denizen_read.checkpoints c set sequence = reached.sequence
    from unnest($3::smallint[], $4::bigint[]) as reached (bucket, sequence)
    where c.projection = $1 and c.version = $2 and c.bucket = reached.bucket
"""
_UNBOUNDED: Final = {
    "statement_timeout": "0",
    "enable_seqscan": "on",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "plan_cache_mode": "auto",
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
}


async def connect_bulk(connect_args: Mapping[str, Any]) -> asyncpg.Connection:
    """A connection to the read database for statements that take as long as they take."""
    return await connect_writer(connect_args, **_UNBOUNDED)


async def do_parts(connect_args: Mapping[str, Any], projection: Projection, version: int, shards: Shards) -> int:
    """Do parts until there are none left, or the replay is paused; how many this worker did."""
    connection = await connect_bulk(connect_args)
    done = 0
    try:
        while await _do_part(connection, projection, version, shards):
            done += 1
    finally:
        connection.terminate()
    return done


async def _do_part(connection: asyncpg.Connection, projection: Projection, version: int, shards: Shards) -> bool:
    began = time.monotonic()
    async with connection.transaction():
        part = await work.claim(connection, projection.name, version)
        if part is None:
            return False
        events = await _read(shards, range(part[0], part[1] + 1))
        changes = fold_streams(projection, by_stream(events), {})
        rows = await _write(connection, version, changes)
        for poison in changes.poison:
            await registry.park(connection, projection.name, version, poison)
        await _checkpoint(connection, projection.name, version, events)
        seconds = time.monotonic() - began
        await work.part_done(
            connection, projection.name, version, part[0], events=len(events), rows=rows, seconds=seconds
        )
    return True


async def _read(shards: Shards, buckets: range) -> list[RecordedEvent]:
    by_shard: dict[ShardId, list[Bucket]] = {}
    for number in buckets:
        bucket = Bucket(number)
        by_shard.setdefault(shards.map.shard_of(bucket), []).append(bucket)
    events: list[RecordedEvent] = []
    for chosen in by_shard.values():
        rows = await shards.read(chosen[0], lambda connection, chosen=chosen: _events(connection, chosen))  # type: ignore[misc]
        events += map(event_of, rows)
    return events


async def _events(connection: asyncpg.Connection, buckets: list[Bucket]) -> list[asyncpg.Record]:
    owned = await connection.fetchval(
        "select count(*) from denizen.buckets where bucket = any ($1) and state in ('open', 'fenced')", buckets
    )
    invariant(owned == len(buckets), "a replay reads buckets where they are", buckets=len(buckets), owned=owned)
    rows: list[asyncpg.Record] = await connection.fetch(_EVENTS, buckets)
    return rows


async def _write(connection: asyncpg.Connection, version: int, changes: Changes) -> int:
    """COPY what is only ever inserted; add up what is counted, last, for its rows are locked to the commit."""
    counted = Changes()
    rows = 0
    for table, new in changes.writes.items():
        rows += len(new)
        if table.kind is Kind.COUNT:
            counted.write(table, new)
        else:
            await connection.copy_records_to_table(
                table.at(version), schema_name=SCHEMA, columns=table.names, records=new
            )
    await write_changes(connection, version, counted)
    return rows


async def _checkpoint(connection: asyncpg.Connection, name: str, version: int, events: list[RecordedEvent]) -> None:
    ends: dict[int, int] = {}
    for event in events:
        position = event.position
        last = ends.get(position.bucket, 0)
        invariant(position.sequence == last + 1, "a bucket is read without holes", position=position, after=last)
        ends[position.bucket] = position.sequence
    await connection.execute(_CHECKPOINTS, name, version, list(ends), list(ends.values()))
