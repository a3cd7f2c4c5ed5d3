"""Comparing a rebuilt version with the live one, row for row, while both follow the writes.

All tables are compared in one snapshot: first by fingerprints over all rows, which are the same for the same rows; row
by row where they are not. Where both versions have the same checkpoint of a bucket, a difference in its
rows is a real one; where they have not, the rows are on the move and are compared again a moment later. Numbers that
are counted over all users can be compared only in a snapshot in which all checkpoints are the same.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.projections import registry
from denizen.projections.projection import Projection
from denizen.projections.tables import Kind, Table
from denizen.sharding.ids import bucket_of


class Difference(Struct, frozen=True):
    """A row that differs: as text in each version, None where it is missing. `user_id` None: it is a count."""

    table: str
    key: tuple[str, ...]
    user_id: UUID | None
    one: str | None
    other: str | None


class Verdict(Struct, frozen=True):
    """What a comparison found. `undecided`: rows, or counts, that were on the move until the end."""

    differences: list[Difference]
    undecided: int
    buckets_behind: int
    whole: bool  # all tables were compared; False: counts never stood still

    @property
    def equal(self) -> bool:
        """Whether the versions are the same, row for row."""
        return not self.differences and not self.undecided and self.whole


async def verify(
    connection: asyncpg.Connection,
    projection: Projection,
    one: int,
    other: int,
    *,
    seconds: float = limits.replay_verify_s,
) -> Verdict:
    """Compare two versions until there is no doubt left, or the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        verdict = await _compare(connection, projection, one, other)
        settled = not verdict.undecided and verdict.whole
        if settled or verdict.differences or loop.time() > deadline:
            return verdict
        await asyncio.sleep(limits.position_poll_s_max)


async def mark(connection: asyncpg.Connection, projection: str, version: int, *, verified: bool) -> None:
    """Remember that nothing was found, or forget that nothing was found before."""
    await connection.execute(
        "update denizen_read.replays set verified_at = case when $3 then clock_timestamp() end"
        " where projection = $1 and version = $2",
        projection,
        version,
        verified,
    )


async def _compare(connection: asyncpg.Connection, projection: Projection, one: int, other: int) -> Verdict:
    real: list[Difference] = []
    undecided = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        left = await registry.checkpoints(connection, projection.name, one)
        right = await registry.checkpoints(connection, projection.name, other)
        moving = {bucket for bucket, sequence in left.items() if right.get(bucket) != sequence}
        whole = True
        for table in projection.tables:
            if table.kind is Kind.COUNT and moving:
                whole = False
                continue
            if await _fingerprint(connection, table, one) == await _fingerprint(connection, table, other):
                continue
            rows = await connection.fetch(table.differences(one, other), limits.replay_differences_max)
            for found in (_difference(table, row) for row in rows):
                if found.user_id is not None and bucket_of(found.user_id) in moving:
                    undecided += 1
                else:
                    real.append(found)
    return Verdict(real, undecided, len(moving), whole)


async def _fingerprint(connection: asyncpg.Connection, table: Table, version: int) -> Mapping[str, Any]:
    row: Mapping[str, Any]
    (row,) = await connection.fetch(
        table.fingerprint(version)
    )  # `fetchrow` would keep the server from scanning in parallel
    return row


def _difference(table: Table, row: Mapping[str, Any]) -> Difference:
    user_id = row["user_id"] if "user_id" in table.key else None
    return Difference(table.name, tuple(str(row[name]) for name in table.key), user_id, row["one"], row["other"])
