"""Reading what is new: how far each bucket is, and the events of many buckets in one query.

A sequence is assigned under its bucket's row lock, which is held until the commit is visible. So a reader that sees
sequence n of a bucket sees all before n, and a reader that asks "after n" never skips a slow transaction.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from denizen import limits
from denizen.events.reading import EVENT_COLUMNS, RAW_EVENT_COLUMNS
from denizen.sharding.ids import Bucket

_HEADS: Final = "select array_agg(bucket), array_agg(head) from denizen.buckets where state = any ($1)"
# The arrays come as text: the client looks at each element of an array of numbers several times.
_NEW: Final = """
    from unnest($1::text::smallint[], $2::text::bigint[]) as wanted (bucket, after)
    cross join lateral (
        select * from denizen.events e
        where e.bucket = wanted.bucket and e.sequence > wanted.after order by e.sequence limit $3
    ) e
    limit $4
"""
_AFTER: Final = f"select {EVENT_COLUMNS} {_NEW}"
_RAW_AFTER: Final = f"select {RAW_EVENT_COLUMNS} {_NEW}"

OWNED: Final = ("open", "fenced")
PUBLISHED: Final = ("open", "fenced", "moved")  # of one that moved away, the tail; what arrives, its owner publishes


async def read_heads(connection: asyncpg.Connection, states: tuple[str, ...] = OWNED) -> dict[Bucket, int]:
    """The head of each bucket that this shard has in one of these states."""
    buckets, heads = await connection.fetchrow(_HEADS, states, timeout=limits.bus_query_s)
    return dict(zip(buckets or (), heads or (), strict=True))


async def read_after(
    connection: asyncpg.Connection, after: Mapping[Bucket, int], *, bucket_events_max: int, events_max: int
) -> list[asyncpg.Record]:
    """The rows of these buckets' events after the given sequences, for `reading.event_of`.

    Those of one bucket are in order, dense, at most `bucket_events_max`; at most `events_max` in all.
    """
    return await _read(connection, _AFTER, after, bucket_events_max, events_max)


async def read_raw_after(
    connection: asyncpg.Connection, after: Mapping[Bucket, int], *, bucket_events_max: int, events_max: int
) -> list[asyncpg.Record]:
    """The same in columns as the bus has them (`reading.RAW_EVENT_COLUMNS`)."""
    return await _read(connection, _RAW_AFTER, after, bucket_events_max, events_max)


async def _read(
    connection: asyncpg.Connection, query: str, after: Mapping[Bucket, int], bucket_events_max: int, events_max: int
) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        query, _array(after.keys()), _array(after.values()), bucket_events_max, events_max, timeout=limits.bus_query_s
    )
    return rows


def _array(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
