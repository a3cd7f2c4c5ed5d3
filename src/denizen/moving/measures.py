"""What each bucket of a shard weighs: users, events, bytes, and how much it is written to.

Users are counted over the index alone up to some millions; beyond that a sample of the table's pages is scaled up,
which is near enough for a plan. Bytes are the bucket's part of what its shard takes, by its events and users. Requests
are what the heads moved since the last look: writes alone, for reads leave no trace in a database.
"""

import time
from typing import Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.sharding.ids import Bucket, ShardId

_SIZES: Final = """
    select pg_total_relation_size('denizen.events')::float8 as events,
           (pg_total_relation_size('denizen.users') + pg_total_relation_size('denizen.login_names'))::float8 as users,
           (select greatest(reltuples, 0) from pg_class where oid = 'denizen.users'::regclass)::float8 as rows
"""
_HEADS: Final = "select bucket, head from denizen.buckets where state in ('open', 'fenced')"
_USERS: Final = "select bucket, count(*) from denizen.users group by bucket"
_SAMPLE: Final = "select bucket, count(*) from denizen.users tablesample system ($1) group by bucket"


class Weight(Struct, frozen=True, gc=False):
    """What one bucket weighs; `requests` per second."""

    users: int
    events: int
    bytes: int
    requests: float


class Scales:
    """Weighs the buckets of shards; remembers the heads of its last look at each."""

    def __init__(self) -> None:
        self._last: dict[ShardId, tuple[float, dict[Bucket, int]]] = {}

    async def weigh(self, shard: ShardId, connection: asyncpg.Connection) -> dict[Bucket, Weight]:
        """Every bucket that the shard owns. Errors as asyncpg gives them."""
        heads: dict[Bucket, int] = dict(await connection.fetch(_HEADS))
        sizes = await connection.fetchrow(_SIZES)
        users = await _users(connection, sizes["rows"])
        all_events, all_users = max(sum(heads.values()), 1), max(sum(users.get(bucket, 0) for bucket in heads), 1)
        requests = self._requests(shard, heads)
        return {
            bucket: Weight(
                users.get(bucket, 0),
                head,
                int(sizes["events"] * head / all_events + sizes["users"] * users.get(bucket, 0) / all_users),
                requests.get(bucket, 0.0),
            )
            for bucket, head in heads.items()
        }

    def _requests(self, shard: ShardId, heads: dict[Bucket, int]) -> dict[Bucket, float]:
        now = time.monotonic()
        before = self._last.get(shard)
        if before is None or now - before[0] >= limits.move_requests_window_s:
            self._last[shard] = (now, heads)
        if before is None:
            return {}
        seconds = max(now - before[0], 0.001)
        return {bucket: max(head - before[1].get(bucket, head), 0) / seconds for bucket, head in heads.items()}


async def _users(connection: asyncpg.Connection, rows: float) -> dict[Bucket, int]:
    if rows <= limits.move_counted_users_max:
        return dict(await connection.fetch(_USERS))
    percent = max(100 * limits.move_sampled_users / rows, 0.1)
    return {bucket: round(n * 100 / percent) for bucket, n in await connection.fetch(_SAMPLE, percent)}
