"""The statement that applies a batch: checkpoints and all rows of all projections, one round trip, one transaction.

    with advanced as (update checkpoints …), one part for each table that changes
    select require_advanced(…)

The checkpoints come first: where one is not what its writer believes, the statement fails before any row is touched.
What has to agree is one number for each version of a projection. How far its buckets are is noted once a batch, as two
arrays, and put together from time to time (`fold_checkpoints`): see `registry.checkpoints` for who reads it.

Parts are independent of each other, for a batch never changes one row of a table twice. Rows that are new
are inserted as such: looking whether each is there would cost a quarter more. If one is there after all, the statement
fails, and its runner does the batch again one by one (`write_changes`), which replaces it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen.errors import DenizenError
from denizen.invariants import invariant
from denizen.projections.folding import Changes
from denizen.projections.projection import Row
from denizen.projections.tables import Table
from denizen.sharding.ids import BUCKETS, Bucket

_FENCED: Final = "DZ001"  # the state of the error that `require_advanced` raises
_ADVANCED: Final = """
    with advanced as (
        update denizen_read.checkpoints c set number = c.number + 1
        from unnest($1::text[], $2::integer[], $3::bigint[]) as step (projection, version, number)
        where c.projection = step.projection and c.version = step.version and c.number = step.number
        returning c.projection, c.version
    ), noted as (
        insert into denizen_read.advances (projection, version, buckets, sequences)
        select projection, version, $4::smallint[], $5::bigint[] from advanced
    )"""
_REQUIRED: Final = "select denizen_read.require_advanced(count(*), cardinality($1::text[])) from advanced"
_FOLD: Final = """
    with advanced as (
        update denizen_read.checkpoints set number = number + 1, sequences = $4
        where projection = $1 and version = $2 and number = $3 returning projection, version
    ), gone as (
        delete from denizen_read.advances a using advanced
        where a.projection = advanced.projection and a.version = advanced.version
    )
    select denizen_read.require_advanced(count(*), 1) from advanced
"""
_FIRST: Final = 6  # the number of the first argument after those of `_ADVANCED`
_Tables = tuple[Table, ...]
_Parts = tuple[int, _Tables, _Tables, _Tables]  # of a version: tables with rows to remove, to insert, and to write


class Fenced(DenizenError):
    """Another runner has advanced this version of the projection."""

    code, title, retryable = "fenced", "Another projector runs", True


class Advance(Struct, frozen=True):
    """The checkpoints of one version of a projection: their number before, and the sequences that are new."""

    projection: str
    version: int
    number: int
    ends: Mapping[Bucket, int]


async def apply_at_once(connection: asyncpg.Connection, batch: Sequence[tuple[Advance, Changes]]) -> None:
    """Advance all these checkpoints, to the same places, and write all these changes, or change nothing; `Fenced`."""
    parts: list[_Parts] = []
    arguments: list[Any] = []
    for advance, changes in batch:
        deletes, inserts, writes = _some(changes.deletes), _some(changes.inserts), _some(changes.writes)
        parts.append((advance.version, tuple(deletes), tuple(inserts), tuple(writes)))
        for rows in (*deletes.values(), *inserts.values(), *writes.values()):
            arguments += columns(rows)
    with _fence():
        await connection.fetch(_statement(tuple(parts)), *_steps([advance for advance, _ in batch]), *arguments)


async def advance_checkpoints(connection: asyncpg.Connection, advance: Advance) -> None:
    """Advance checkpoints alone, in the caller's transaction if there is one; `Fenced`."""
    with _fence():
        await connection.fetch(f"{_ADVANCED} {_REQUIRED}", *_steps([advance]))


async def fold_checkpoints(connection: asyncpg.Connection, advance: Advance) -> None:
    """Write all checkpoints of a version, which are `advance.ends`, as one, and remove what was noted; `Fenced`."""
    sequences = [advance.ends[Bucket(bucket)] for bucket in range(BUCKETS)]
    with _fence():
        await connection.fetch(_FOLD, advance.projection, advance.version, advance.number, sequences)


@contextmanager
def _fence() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == _FENCED:
            raise Fenced("another projector runs these projections") from error
        raise


async def write_changes(connection: asyncpg.Connection, version: int, changes: Changes) -> None:
    """Write changes alone, one statement for each table, in the caller's transaction; what is there is replaced."""
    for table, keys in changes.deletes.items():
        if keys:
            await connection.execute(table.delete(version), *columns(keys))
    for table, rows in (*changes.inserts.items(), *changes.writes.items()):
        if rows:
            await connection.execute(table.write(version), *columns(rows))
    for table, users in changes.clears.items():
        await connection.execute(table.clear(version), users)


def _some(rows: Mapping[Table, list[Row]]) -> dict[Table, list[Row]]:
    return {table: some for table, some in rows.items() if some}


def columns(rows: Sequence[Row]) -> Iterable[tuple[Any, ...]]:
    """The rows as an array for each column."""
    return zip(*rows, strict=True)


def _steps(advances: Sequence[Advance]) -> tuple[list[Any], ...]:
    """The first arguments: (projection, version, number) of each, and (bucket, sequence) of all, as arrays."""
    ends = advances[0].ends
    invariant(all(each.ends == ends for each in advances), "versions that are written together are level")
    steps = [(each.projection, each.version, each.number) for each in advances]
    return (*map(list, zip(*steps, strict=True)), list(ends), list(ends.values()))


@lru_cache(maxsize=1024)
def _statement(versions: tuple[_Parts, ...]) -> str:
    first = _FIRST
    parts = [_ADVANCED]
    for version, deletes, inserts, writes in versions:
        for table in deletes:
            parts.append(f"part{len(parts)} as ({table.delete(version, first)})")
            first += len(table.key)
        for table in inserts:
            parts.append(f"part{len(parts)} as ({table.insert(version, first)})")
            first += len(table.columns)
        for table in writes:
            parts.append(f"part{len(parts)} as ({table.write(version, first)})")
            first += len(table.columns)
    return f"{', '.join(parts)} {_REQUIRED}"
