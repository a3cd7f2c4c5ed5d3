"""An export from beginning to end: shard by shard in the order of buckets, in pages, in bounded memory.

Users come in the order of (bucket, id), the same as in lists of the API, for the map gives each shard whole runs of
buckets. Each shard is read in one snapshot; deleted users are left out.
"""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.bulk.exports.rows import csv_header, csv_line, ndjson_line
from denizen.bulk.exports.target import open_target
from denizen.bulk.shards import Shards
from denizen.bulk.verification.reading import SETTINGS, begin
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.lanes import BROKEN
from denizen.events.records import decode_state
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import ShardId

_USERS: Final = """
    select u.id, u.version, u.created_at, u.updated_at, u.document from denizen.users u
    where u.bucket between $1 and $2 and u.status <> 3 order by u.bucket, u.id
"""
_ESTIMATE: Final = "select greatest(reltuples, 0)::bigint from pg_class where oid = 'denizen.users'::regclass"


class Summary(Struct):
    """How it went."""

    users: int = 0
    seconds: float = 0.0
    users_per_second: int = 0
    file: str = ""


class Progress(Protocol):
    """What watches an export."""

    def begin(self, users: int) -> None:
        """About so many users."""
        ...

    def advance(self, users: int) -> None:
        """So many are written."""
        ...


async def export(data: Path, file: str, progress: Progress, *, csv: bool, passwords: bool) -> Summary:
    """Write all users. Raises `DenizenError`; a file is then as it was before."""
    began = time.monotonic()
    shards = Shards(Deployment.load(data), {**SETTINGS, "application_name": "denizen export"})
    summary = Summary(file=file)
    try:
        await shards.start()
        await _begin(shards, progress)
        with open_target(file) as output:
            await _write(shards, output, summary, progress, csv=csv, passwords=passwords)
    except (*BROKEN, asyncpg.PostgresError) as error:
        raise BadDeployment(f"a shard failed while it was read: {error}; see `denizen status`") from error
    finally:
        await shards.close()
    summary.seconds = round(time.monotonic() - began, 3)
    summary.users_per_second = round(summary.users / summary.seconds)
    return summary


async def _begin(shards: Shards, progress: Progress) -> None:
    estimate = 0
    for shard in shards:
        connection = await shard.connection()
        await begin(connection)
        estimate += await connection.fetchval(_ESTIMATE)
    progress.begin(estimate)


async def _write(
    shards: Shards, output: IO[bytes], summary: Summary, progress: Progress, *, csv: bool, passwords: bool
) -> None:
    to_line = csv_line(passwords=passwords) if csv else ndjson_line(passwords=passwords)
    if csv:
        output.write(csv_header(passwords=passwords))
    for shard, first, last in runs(shards.map):
        async for page in _pages(await shards[shard].connection(), first, last):
            output.write(b"".join([to_line(*row[:4], decode_state(row[4])) for row in page]))
            summary.users += len(page)
            progress.advance(summary.users)


async def _pages(connection: asyncpg.Connection, first: int, last: int) -> AsyncIterator[list[Any]]:
    cursor = await connection.cursor(_USERS, first, last)
    while page := await cursor.fetch(limits.export_page_rows):
        yield page


def runs(bucket_map: BucketMap) -> Iterator[tuple[ShardId, int, int]]:
    """Ranges of buckets that follow each other on one shard: shard, first, last."""
    start = 0
    owners = bucket_map.owners
    for bucket in range(1, len(owners) + 1):
        if bucket == len(owners) or owners[bucket] != owners[start]:
            yield bucket_map.shards[owners[start]], start, bucket - 1
            start = bucket
