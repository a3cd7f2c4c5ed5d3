"""Reading what is new: how far each bucket is, and the events of many buckets in one query.

A sequence is assigned under its bucket's row lock, which is held until the commit is visible. So a reader that sees
sequence n of a bucket sees all before n, and a reader that asks "after n" never skips a slow transaction.
"""

from collections.abc import Mapping
from typing import Final

import asyncpg

from denizen import limits
from denizen.events.reading import EVENT_COLUMNS
from denizen.sharding.ids import Bucket

_HEADS: Final = "select bucket, head from denizen.buckets where state = any ($1)"
_AFTER: Final = f"""
    select {EVENT_COLUMNS}
    from unnest($1::smallint[], $2::bigint[]) as wanted (bucket, after)
    cross join lateral (
        select * from denizen.events e
        where e.bucket = wanted.bucket and e.sequence > wanted.after order by e.sequence limit $3
    ) e
    limit $4
"""  # noqa: S608 - only constants

OWNED: Final = ("open", "fenced")
PUBLISHED: Final = ("open", "fenced", "moved")  # of one that moved away, the tail; what arrives, its owner publishes


async def read_heads(connection: asyncpg.Connection, states: tuple[str, ...] = OWNED) -> dict[Bucket, int]:
    """The head of each bucket that this shard has in one of these states."""
    rows = await connection.fetch(_HEADS, states, timeout=limits.bus_query_s)
    return {bucket: head for bucket, head in rows}  # noqa: C416 - a record is a tuple, not a pair


async def read_after(
    connection: asyncpg.Connection, after: Mapping[Bucket, int], *, bucket_events_max: int, events_max: int
) -> list[asyncpg.Record]:
    """The rows of these buckets' events after the given sequences, for `reading.event_of`.

    Those of one bucket are in order, dense, at most `bucket_events_max`; at most `events_max` in all.
    """
    rows: list[asyncpg.Record] = await connection.fetch(
        _AFTER, list(after), list(after.values()), bucket_events_max, events_max, timeout=limits.bus_query_s
    )
    return rows
