"""The statement that applies a batch: checkpoints and all rows at once, one round trip, one transaction.

    with advanced as (update checkpoints …), one part for each table that changes
    select require_advanced(…)

The checkpoints come first: where one is not what the writer believes, the statement fails before any row is touched.
Parts are independent of each other, for a batch never changes one row of a table twice.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import asyncpg

from denizen.projections.folding import Changes
from denizen.projections.projection import Row
from denizen.projections.tables import Table

FENCED: Final = "DZ001"  # the state of the error that `require_advanced` raises
ADVANCE: Final = """
    update denizen_read.checkpoints c set sequence = step.after
    from unnest($3::smallint[], $4::bigint[], $5::bigint[]) as step (bucket, before, after)
    where c.projection = $1 and c.version = $2 and c.bucket = step.bucket and c.sequence = step.before
"""
_FIRST: Final = 6  # the number of the first argument after those of `ADVANCE`


async def apply_at_once(
    connection: asyncpg.Connection, identity: tuple[str, int], steps: Sequence[Sequence[int]], changes: Changes
) -> None:
    """Advance the checkpoints by `steps` (buckets, before, after) and write the changes, or change nothing."""
    deletes = {table: keys for table, keys in changes.deletes.items() if keys}
    writes = {table: rows for table, rows in changes.writes.items() if rows}
    arguments: list[Any] = []
    for rows in (*deletes.values(), *writes.values()):
        arguments += columns(rows)
    await connection.fetch(_statement(identity[1], tuple(deletes), tuple(writes)), *identity, *steps, *arguments)


async def write_changes(connection: asyncpg.Connection, version: int, changes: Changes) -> None:
    """Write changes alone, one statement for each table, in the caller's transaction."""
    for table, keys in changes.deletes.items():
        if keys:
            await connection.execute(table.delete(version), *columns(keys))
    for table, rows in changes.writes.items():
        if rows:
            await connection.execute(table.write(version), *columns(rows))
    for table, users in changes.clears.items():
        await connection.execute(table.clear(version), users)


def columns(rows: Sequence[Row]) -> Iterable[tuple[Any, ...]]:
    """The rows as an array for each column."""
    return zip(*rows, strict=True)


@lru_cache(maxsize=1024)
def _statement(version: int, deletes: tuple[Table, ...], writes: tuple[Table, ...]) -> str:
    first = _FIRST
    parts = [f"advanced as ({ADVANCE} returning c.bucket)"]
    for table in deletes:
        parts.append(f"part{len(parts)} as ({table.delete(version, first)})")
        first += len(table.key)
    for table in writes:
        parts.append(f"part{len(parts)} as ({table.write(version, first)})")
        first += len(table.columns)
    return (
        f"with {', '.join(parts)} "  # noqa: S608 - statements of the tables' own declarations
        "select denizen_read.require_advanced(count(*), cardinality($3::smallint[])) from advanced"
    )
