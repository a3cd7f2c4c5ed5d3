"""Reading a shard in one snapshot, in the order of buckets, a page at a time."""

from typing import Any, Final

import asyncpg

from denizen import limits

SETTINGS: Final = {
    "application_name": "denizen verify",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
}

EVENTS: Final = """
    select e.bucket, e.sequence, e.stream, e.version, e.type, e.schema, e.recorded_at, e.data, e.secret,
           denizen.event_hash(e)
    from denizen.events e where e.bucket between $1 and $2 order by e.bucket, e.sequence
"""
USERS: Final = """
    select u.bucket, u.id, u.version, u.status, u.created_at, u.updated_at, u.document
    from denizen.users u where u.bucket between $1 and $2 order by u.bucket
"""
NAMES: Final = """
    select l.bucket, l.kind, l.value, l.user_id
    from denizen.login_names l where l.bucket between $1 and $2 order by l.bucket
"""
UNSETTLED: Final = """
    select bucket, kind, value, state, reservation, since < clock_timestamp() - make_interval(secs => $3) as old
    from denizen.login_names_unsettled where bucket between $1 and $2
"""
BUCKETS: Final = "select bucket, head, digest from denizen.buckets where bucket between $1 and $2"
DANGLING: Final = """
    select i.bucket, i.user_id, i.version
    from denizen.idempotency i left join denizen.events e on e.stream = i.user_id and e.version = i.version
    where i.bucket between $1 and $2 and e.bucket is distinct from i.bucket
"""
MISMATCHES: Final = """
    select r.ordinal::integer, l.user_id is not distinct from r.user_id and l.user_id is not null
    from unnest(string_to_array($1, ' ')::smallint[], string_to_array($2, ' ')::smallint[],
                string_to_array($3, E'\\x01'), string_to_array($4, ' ')::uuid[]) with ordinality
         as r (bucket, kind, value, user_id, ordinal)
    left join denizen.login_names l on l.bucket = r.bucket and l.kind = r.kind and l.value = r.value
    left join denizen.login_names_unsettled s on s.bucket = l.bucket and s.kind = l.kind and s.value = l.value
    where l.user_id is distinct from r.user_id or s.state = 'reserved'
"""


async def begin(connection: asyncpg.Connection, snapshot: str | None = None) -> None:
    """Begin to read one state of the shard for good: that of `snapshot`, or that of now."""
    await connection.execute("begin isolation level repeatable read read only")
    if snapshot is not None:
        await connection.execute(f"set transaction snapshot '{_checked(snapshot)}'")


class Groups:
    """The rows of a query whose first column is their bucket and its order, bucket by bucket."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._page: list[Any] = []
        self._at = 0
        self._ended = False

    @classmethod
    async def open(cls, connection: asyncpg.Connection, query: str, *arguments: Any) -> "Groups":
        """Begin the query."""
        return cls(await connection.cursor(query, *arguments))

    async def of(self, bucket: int) -> list[Any]:
        """All rows of this bucket; asked for in order of buckets."""
        rows: list[Any] = []
        while True:
            page, at = self._page, self._at
            start = at
            size = len(page)
            while at < size and page[at][0] <= bucket:
                at += 1
            rows += page[start:at]
            self._at = at
            if at < size or self._ended:
                return [row for row in rows if row[0] == bucket]
            self._page = await self._cursor.fetch(limits.verify_page_rows)
            self._at = 0
            self._ended = not self._page


def _checked(snapshot: str) -> str:
    if not all(character.isalnum() or character == "-" for character in snapshot):
        raise ValueError("not the name of a snapshot")
    return snapshot
