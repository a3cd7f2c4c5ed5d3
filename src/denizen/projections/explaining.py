"""Explaining a row: the events of a user, folded anew, beside what the read model has.

Rows, checkpoint and parked streams are read in one snapshot of the read database; so what ought to be there is the
fold of exactly the events up to that checkpoint. Tables that count over all users have no row of one user: shown is
what this user adds to them.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.bus.shards import Shards
from denizen.errors import Unavailable
from denizen.events.reading import read_stream
from denizen.events.records import RecordedEvent
from denizen.projections import registry
from denizen.projections.folding import by_stream, fold_streams
from denizen.projections.projection import Projection, Row
from denizen.projections.registry import Parked
from denizen.projections.tables import SCHEMA, Kind, Table
from denizen.sharding.ids import bucket_of

_LIVE: Final = """
    select version, denizen_read.checkpoint(projection, version, $2) from denizen_read.projections
    where projection = $1 and live
"""


class ExplainedTable(Struct, frozen=True):
    """The user's rows in a table, and those that its events give. `stored` is None where rows are of all users."""

    table: Table
    stored: list[Row] | None
    expected: list[Row]

    @property
    def agrees(self) -> bool:
        """Whether they are the same."""
        return self.stored is None or sorted(map(repr, self.stored)) == sorted(map(repr, self.expected))


class Explanation(Struct, frozen=True):
    """Why the rows of a user are as they are. `applied` of the `events` made them; the others are still to come.

    `whole`: all events were folded; a user with more of them than `explain_events_max` is not compared.
    """

    projection: str
    version: int
    checkpoint: int
    events: list[RecordedEvent]
    applied: int
    tables: list[ExplainedTable]
    parked: Parked | None
    whole: bool

    @property
    def agrees(self) -> bool | None:
        """Whether every table has what the events give; None if nobody can say."""
        return all(table.agrees for table in self.tables) if self.whole else None


async def explain(
    connection: asyncpg.Connection, shards: Shards, projection: Projection, user_id: UUID
) -> Explanation | None:
    """Explain the user's rows in the live version; None if there was never such a user."""
    bucket = bucket_of(user_id)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        live = await connection.fetchrow(_LIVE, projection.name, bucket)
        if live is None:
            raise Unavailable(f"{projection.name} has no live version yet")
        version, checkpoint = live
        parked = [
            each
            for each in await registry.parked(connection)
            if (each.projection, each.version, each.stream) == (projection.name, version, user_id)
        ]
        stored = {table: await _stored(connection, table, version, user_id) for table in projection.tables}
    limit = limits.explain_events_max
    events = await shards.read(bucket, lambda reader: read_stream(reader, user_id, limit=limit + 1))
    if not events:
        return None
    applied = [each for each in events if each.position.sequence <= checkpoint]
    if parked:
        applied = [each for each in applied if each.version < parked[0].stream_version]
    changes = fold_streams(projection, by_stream(applied), {})
    tables = [ExplainedTable(table, rows, _rows(table, changes.rows(table))) for table, rows in stored.items()]
    return Explanation(
        projection.name,
        version,
        checkpoint,
        events[:limit],
        len(applied[:limit]),
        tables,
        parked[0] if parked else None,
        len(events) <= limit,
    )


async def _stored(connection: asyncpg.Connection, table: Table, version: int, user_id: UUID) -> list[Row] | None:
    if table.kind is Kind.COUNT:
        return None
    where = f"{SCHEMA}.{table.at(version)} where {table.names[0]} = $1"
    rows: Sequence[Any] = await connection.fetch(f"select {', '.join(table.names)} from {where}", user_id)  # noqa: S608
    return _rows(table, rows)


def _rows(table: Table, rows: Sequence[Any]) -> list[Row]:
    return [table.row(*row) for row in rows]
