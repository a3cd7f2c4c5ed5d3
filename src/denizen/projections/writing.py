"""The statement that applies a batch: checkpoints and all rows of all projections, one round trip, one transaction.

    with advanced as (update checkpoints …), one part for each table that changes
    select require_advanced(…)

The checkpoints come first: where one is not what its writer believes, the statement fails before any row is touched.
Parts are independent of each other, for a batch never changes one row of a table twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen.errors import DenizenError
from denizen.projections.folding import Changes
from denizen.projections.projection import Row
from denizen.projections.tables import Table
from denizen.sharding.ids import Bucket

_FENCED: Final = "DZ001"  # the state of the error that `require_advanced` raises
_ADVANCE: Final = """
    update denizen_read.checkpoints c set sequence = step.after
    from unnest($1::text[], $2::integer[], $3::smallint[], $4::bigint[], $5::bigint[])
        as step (projection, version, bucket, before, after)
    where c.projection = step.projection and c.version = step.version and c.bucket = step.bucket
      and c.sequence = step.before
"""
_FIRST: Final = 6  # the number of the first argument after those of `_ADVANCE`
_Parts = tuple[int, tuple[Table, ...], tuple[Table, ...]]  # of a version: tables with rows to remove, and to write


class Fenced(DenizenError):
    """Another runner has advanced this version of the projection."""

    code, title, retryable = "fenced", "Another projector runs", True


class Advance(Struct, frozen=True):
    """The checkpoints of one version of a projection, as they are and as they are to be."""

    projection: str
    version: int
    before: Mapping[Bucket, int]
    after: Mapping[Bucket, int]


async def apply_at_once(connection: asyncpg.Connection, batch: Sequence[tuple[Advance, Changes]]) -> None:
    """Advance all these checkpoints and write all these changes, or change nothing; `Fenced`."""
    parts: list[_Parts] = []
    arguments: list[Any] = []
    for advance, changes in batch:
        deletes = {table: keys for table, keys in changes.deletes.items() if keys}
        writes = {table: rows for table, rows in changes.writes.items() if rows}
        parts.append((advance.version, tuple(deletes), tuple(writes)))
        for rows in (*deletes.values(), *writes.values()):
            arguments += columns(rows)
    steps = _steps([advance for advance, _ in batch])
    try:
        await connection.fetch(_statement(tuple(parts)), *steps, *arguments)
    except asyncpg.PostgresError as error:
        if error.sqlstate == _FENCED:
            raise Fenced("another projector runs these projections") from error
        raise


async def advance_checkpoints(connection: asyncpg.Connection, advance: Advance) -> None:
    """Advance checkpoints alone, in the caller's transaction if there is one; `Fenced`."""
    done = await connection.execute(_ADVANCE, *_steps([advance]))
    if done != f"UPDATE {len(advance.after)}":
        raise Fenced(f"another projector runs version {advance.version} of {advance.projection}")


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


def _steps(advances: Sequence[Advance]) -> tuple[list[str], list[int], list[Bucket], list[int], list[int]]:
    """The first arguments: (projection, version, bucket, before, after) of each checkpoint, as arrays, in one order."""
    names: list[str] = []
    versions: list[int] = []
    buckets: list[Bucket] = []
    before: list[int] = []
    after: list[int] = []
    for advance in advances:
        ordered = sorted(advance.after)
        names += [advance.projection] * len(ordered)
        versions += [advance.version] * len(ordered)
        buckets += ordered
        before += [advance.before[bucket] for bucket in ordered]
        after += [advance.after[bucket] for bucket in ordered]
    return names, versions, buckets, before, after


@lru_cache(maxsize=1024)
def _statement(versions: tuple[_Parts, ...]) -> str:
    first = _FIRST
    parts = [f"advanced as ({_ADVANCE} returning c.bucket)"]
    for version, deletes, writes in versions:
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
