"""A worker of a replay: part after part, each in one transaction.

    claim a part → its events from the shards → fold, encode, bucket by bucket → COPY rows, checkpoints, "done" → commit

A worker that is killed leaves its part as it was; another one, or the next run, does it. What a shard has of a bucket
in one snapshot is a whole beginning of the bucket's log, so its last sequence is the checkpoint.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.bus.shards import Shards
from denizen.errors import Moved
from denizen.events.scanning import copy_buckets, histories
from denizen.projections import registry
from denizen.projections.copying import CopyData
from denizen.projections.database import connect_writer
from denizen.projections.folding import Changes, Folder
from denizen.projections.projection import Projection
from denizen.projections.replay import work
from denizen.projections.tables import Kind
from denizen.projections.writing import write_changes
from denizen.sharding.ids import Bucket, ShardId

_CHECKPOINTS: Final = """
    insert into denizen_read.advances (projection, version, buckets, sequences) values ($1, $2, $3, $4)
"""
_UNBOUNDED: Final = {
    "statement_timeout": "0",
    "enable_seqscan": "on",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "plan_cache_mode": "auto",
    "max_parallel_maintenance_workers": "0",  # indexes are made side by side
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
        folder, heads = Folder(projection), dict[Bucket, int]()
        copies = {table: CopyData(table) for table in projection.tables if table.kind is not Kind.COUNT}
        for copied in await _read(shards, [Bucket(number) for number in range(part[0], part[1] + 1)]):
            for history in histories(copied):
                folder.fold(history.streams, {})
                heads[history.bucket] = history.events
                for table, new in folder.drain().items():
                    copies[table].add(new)
        changes = folder.finish()
        rows = await _write(connection, version, copies.values(), changes)
        for poison in changes.poison:
            await registry.park(connection, projection.name, version, poison)
        await connection.execute(_CHECKPOINTS, projection.name, version, list(heads), list(heads.values()))
        seconds = time.monotonic() - began
        await work.part_done(
            connection, projection.name, version, part[0], events=sum(heads.values()), rows=rows, seconds=seconds
        )
    return True


async def _read(shards: Shards, buckets: Sequence[Bucket]) -> list[bytes]:
    """All events of these buckets; of those that move away meanwhile from where they went."""
    copied = []
    for moves in range(limits.replay_moves_max + 1):
        left: list[Bucket] = []
        for chosen in _by_shard(shards, buckets).values():
            try:
                copied.append(await shards.read(chosen[0], lambda reader, chosen=chosen: copy_buckets(reader, chosen)))  # type: ignore[misc]
            except Moved:
                if moves == limits.replay_moves_max:
                    raise
                left += chosen
        if not left:
            break
        buckets = left
        await asyncio.sleep(limits.replay_move_wait_s)  # the map follows soon
    return copied


def _by_shard(shards: Shards, buckets: Sequence[Bucket]) -> dict[ShardId, list[Bucket]]:
    found: dict[ShardId, list[Bucket]] = {}
    for bucket in buckets:
        found.setdefault(shards.map.shard_of(bucket), []).append(bucket)
    return found


async def _write(connection: asyncpg.Connection, version: int, copies: Collection[CopyData], counted: Changes) -> int:
    """COPY what is only ever inserted; add up what is counted, last, for its rows are locked to the commit."""
    for copy in copies:
        await copy.send(connection, version)
    await write_changes(connection, version, counted)
    return sum(copy.rows for copy in copies) + sum(map(len, counted.writes.values()))
