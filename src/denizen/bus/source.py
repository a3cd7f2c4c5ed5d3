"""Where a relay reads: one connection to its shard, which also holds the shard's relay lock.

The lock is the fence: PostgreSQL gives it to one session at a time, and takes it back when the session ends. Only what
was read over the session that holds it is published. A relay that lost its session without knowing, and publishes
one last batch, is found out by the stream (see `outlet`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.events.store import connect
from denizen.events.tailing import PUBLISHED, read_heads, read_raw_after
from denizen.sharding.ids import Bucket

_LOCK: Final = 0x64656E72656C6179  # "denrelay"; advisory locks are of one database, so one number serves all shards
# A relay's machine that vanishes must not keep the lock for the two hours that TCP takes by default.
_SESSION: Final = {
    "application_name": "denizen relay",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}


class Source:
    """A shard's events and heads, read by its one relay."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def heads(self) -> dict[Bucket, int]:
        """The heads of all buckets that are or were here: also one that has moved away has a tail to publish.

        Not of those that only arrive: their events are published by the relay of the shard that has them.
        """
        return await read_heads(self._connection, PUBLISHED)

    async def after(self, buckets: Mapping[Bucket, int], events_max: int) -> list[asyncpg.Record]:
        """At most so many events of these buckets after the given sequences, one bucket after the other."""
        return await read_raw_after(
            self._connection,
            buckets,
            bucket_events_max=limits.bus_bucket_events_max,
            events_max=events_max,
        )


@asynccontextmanager
async def locked_source(connect_args: dict[str, Any]) -> AsyncIterator[Source]:
    """The shard's source, as soon as no other relay has it; given back at the end of the `with` block."""
    settings = connect_args.get("server_settings", {}) | _SESSION
    connection = await connect(connect_args | {"server_settings": settings})
    try:
        while not await _try_lock(connection):  # noqa: ASYNC110 - another session rings no bell
            await asyncio.sleep(limits.bus_lock_retry_s)
        yield Source(connection)
    finally:
        connection.terminate()


async def _try_lock(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK, timeout=limits.bus_query_s))
