"""The export: one shard after the other, each in the snapshot taken at the start, by a cursor; memory stays flat.

Users come in the order of (bucket, id) within a shard, deleted ones are left out. Each bucket is read on one shard,
whatever moves meanwhile. Two shards' snapshots are a moment apart: who signs up in it may be in the file or not.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any, Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.bulk.exports.formats import Format
from denizen.bulk.exports.target import target
from denizen.bulk.shards import Shard, Shards
from denizen.bulk.snapshots import take_snapshots
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.lanes import BROKEN
from denizen.events.records import decode_state

Advance = Callable[[int, int], None]
"""Told how many users are written, and how many there are, about."""

_SESSION: Final = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_ESTIMATE: Final = "select greatest(reltuples, 0)::bigint from pg_class where oid = 'denizen.users'::regclass"
_USERS: Final = """
    select u.id, u.version, u.created_at, u.updated_at, u.document
    from denizen.users u join denizen.buckets b on b.bucket = u.bucket and b.state in ('open', 'fenced')
    where u.status < 3 and u.bucket = any ($1) order by u.bucket, u.id
"""


class Summary(Struct):
    """What an export did. `bytes` are those before compression."""

    file: str
    users: int
    bytes: int
    seconds: float


async def export(data: Path, name: str, form: Format, advance: Advance) -> Summary:
    """Write all users of the deployment in `data` to `name`; `BadDeployment` if a shard does not answer."""
    started = time.monotonic()
    shards = Shards(Deployment.load(data), _SESSION)
    try:
        await shards.start()
        about = await _estimate(shards)
        with target(name) as file:
            users, size = await _write(shards, file, form, lambda done: advance(done, max(about, done)))
    finally:
        await shards.close()
    return Summary(name, users, size, round(time.monotonic() - started, 3))


async def _write(shards: Shards, file: IO[bytes], form: Format, advance: Callable[[int], None]) -> tuple[int, int]:
    head = form.head()
    file.write(head)
    users, size = 0, len(head)
    owned = await take_snapshots(shards, _begin)
    if owned.missing:
        raise BadDeployment(f"no shard serves bucket {owned.missing[0]}: see `denizen status` and `denizen rebalance`")
    for shard in shards:
        async for rows in _pages(shard, owned.buckets_of(shard.id)):
            lines = b"".join(
                form.user(identifier, version, created_at, updated_at, decode_state(document))
                for identifier, version, created_at, updated_at, document in rows
            )
            await asyncio.to_thread(file.write, lines)
            users, size = users + len(rows), size + len(lines)
            advance(users)
    return users, size


async def _begin(connection: asyncpg.Connection) -> None:
    await connection.execute("begin isolation level repeatable read read only")


async def _pages(shard: Shard, buckets: list[int]) -> AsyncIterator[list[Any]]:
    """The users in these buckets of the shard, a page at a time, in the snapshot that was taken."""
    try:
        connection = await shard.connection()
        cursor = await connection.cursor(_USERS, buckets)
        while rows := await cursor.fetch(limits.export_page_users):
            yield rows
        await connection.execute("commit")
    except (*BROKEN, asyncpg.PostgresError) as error:
        raise BadDeployment(
            f"shard {shard.id} broke off ({type(error).__name__}): nothing was written; see `denizen status`"
        ) from error


async def _estimate(shards: Shards) -> int:
    return sum([await (await shard.connection()).fetchval(_ESTIMATE) for shard in shards])
