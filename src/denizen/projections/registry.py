"""Which versions of which projections there are, and what is to be done with each: rows of the read database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from denizen.errors import BadDeployment
from denizen.invariants import invariant
from denizen.projections.folding import Poison
from denizen.projections.projection import Projection
from denizen.projections.tables import SCHEMA, Kind
from denizen.sharding.ids import BUCKETS, Bucket

_VERSIONS: Final = """
    select projection, version, state, live, definition, reason, created_at, promoted_at
    from denizen_read.projections order by projection, version
"""
_REGISTER: Final = """
    insert into denizen_read.projections (projection, version, state, live, definition) values ($1, $2, $3, $4, $5)
"""
_CHECKPOINTS: Final = """
    insert into denizen_read.checkpoints (projection, version, sequences)
    values ($1, $2, array_fill(0::bigint, array[$3::integer]))
"""
_STORED: Final = """
    select number, null as buckets, sequences from denizen_read.checkpoints where projection = $1 and version = $2
    union all
    select null, buckets, sequences from denizen_read.advances where projection = $1 and version = $2
"""
_PARK: Final = """
    insert into denizen_read.parked
        (projection, version, stream, stream_version, bucket, sequence, type, error)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict (projection, version, stream) do update set
        stream_version = excluded.stream_version, sequence = excluded.sequence, type = excluded.type,
        error = excluded.error, attempts = parked.attempts + 1, wish = null
"""
_PARKED: Final = """
    select projection, version, stream, stream_version, bucket, sequence, type, error, attempts, parked_at, wish
    from denizen_read.parked order by projection, version, parked_at, stream
"""
_WISH: Final = """
    update denizen_read.parked set wish = $3 where projection = $1 and stream = $2 returning version
"""
_LOCK_VERSION: Final = "select from denizen_read.projections where projection = $1 and version = $2 for update"
_PAUSE: Final = """
    update denizen_read.projections set state = 'paused', reason = $3
    where projection = $1 and version = $2 and state <> 'building'
"""
_RESUME: Final = """
    update denizen_read.projections set state = 'running', reason = null
    where projection = $1 and version = $2 and state = 'paused'
"""


UNKNOWN_PROJECTION: Final = "this program has no such projection"
OTHER_DEFINITION: Final = "its tables were made by another definition: make a new version with `denizen replay run`"


class Version(Struct, frozen=True):
    """One version of a projection, as the read database has it."""

    projection: str
    version: int
    state: str
    live: bool
    definition: str
    reason: str | None
    created_at: datetime
    promoted_at: datetime | None

    def obstacle(self, projections: Mapping[str, Projection]) -> str | None:
        """Why a program with these projections cannot apply events to it; None if it can."""
        projection = projections.get(self.projection)
        if projection is None:
            return UNKNOWN_PROJECTION
        return None if self.definition == projection.definition else OTHER_DEFINITION

    @property
    def tables(self) -> list[str]:
        """The names of its tables, without the version: what its definition was made of may be gone."""
        return [table.partition(":")[0] for table in self.definition.split(";")]


class Parked(Struct, frozen=True):
    """A stream that waits at an event which a projection could not take."""

    projection: str
    version: int
    stream: UUID
    stream_version: int
    bucket: Bucket
    sequence: int
    type: str
    error: str
    attempts: int
    parked_at: datetime
    wish: str | None


class StoredCheckpoints(Struct, frozen=True):
    """How far a version is: `number` is to be known by who writes, `advances` were noted since all was in one row."""

    number: int
    sequences: dict[Bucket, int]
    advances: int


async def versions(connection: asyncpg.Connection) -> list[Version]:
    """Every version of every projection."""
    return [Version(*row) for row in await connection.fetch(_VERSIONS)]


async def version_of(connection: asyncpg.Connection, projection: str, version: int) -> Version:
    """This version of a projection; `BadDeployment` if there is none."""
    for found in await versions(connection):
        if (found.projection, found.version) == (projection, version):
            return found
    raise BadDeployment(f"{projection[:60]} has no version {version}")


async def create_version(
    connection: asyncpg.Connection, projection: Projection, version: int, *, state: str, indexed: bool
) -> None:
    """Make the tables, the checkpoints and the entry of a version, in the caller's transaction; not live."""
    for table in projection.tables:
        await connection.execute(table.create(version))
        if indexed:
            for statement in table.create_indexes(version):
                await connection.execute(statement)
        elif table.kind is Kind.COUNT:  # it is small, and added to from the start
            await connection.execute(table.create_key(version))
    await connection.execute(_REGISTER, projection.name, version, state, False, projection.definition)
    await connection.execute(_CHECKPOINTS, projection.name, version, BUCKETS)


async def drop_version(connection: asyncpg.Connection, projection: str, version: int, *, unknown: bool) -> None:
    """Remove a version that is not live, in the caller's transaction; of an `unknown` projection the live one too."""
    await connection.execute(_LOCK_VERSION, projection, version)
    found = await version_of(connection, projection, version)
    if found.live and not unknown:
        raise BadDeployment(f"version {version} of {projection} is live: promote another one first")
    if found.live and found.state == "running":
        raise BadDeployment(f"version {version} of {projection} is live, and a projector that knows it runs it")
    for table in found.tables:
        if found.live:
            await connection.execute(f'drop view if exists {SCHEMA}."{table}"')
        await connection.execute(f'drop table if exists {SCHEMA}."{table}_v{version}"')
    # The advances last: workers of a replay add to them as long as its parts are there.
    for place in ("parked", "progress", "checkpoints", "projections", "advances"):
        await connection.execute(
            f"delete from {SCHEMA}.{place} where projection = $1 and version = $2",  # noqa: S608 - fixed names
            projection,
            version,
        )


async def make_live(connection: asyncpg.Connection, projection: Projection, version: int) -> None:
    """Let readers see this version from the commit of the caller's transaction on; the other ones stay."""
    await connection.execute("update denizen_read.projections set live = false where projection = $1", projection.name)
    done = await connection.execute(
        "update denizen_read.projections set live = true, promoted_at = clock_timestamp()"
        " where projection = $1 and version = $2 and state <> 'building'",
        projection.name,
        version,
    )
    invariant(done == "UPDATE 1", "a promoted version exists and is whole", projection=projection.name, version=version)
    for table in projection.tables:
        await connection.execute(table.drop_view())
        await connection.execute(table.create_view(version))


async def start_following(connection: asyncpg.Connection, projection: str, version: int) -> None:
    """A version that was built is whole: let the projector apply events to it."""
    await connection.execute(
        "update denizen_read.projections set state = 'running'"
        " where projection = $1 and version = $2 and state = 'building'",
        projection,
        version,
    )


async def pause(connection: asyncpg.Connection, projection: str, version: int, reason: str) -> bool:
    """Stop applying events to this version; whether there is such a one."""
    return bool(await connection.execute(_PAUSE, projection, version, reason) == "UPDATE 1")


async def resume(connection: asyncpg.Connection, projection: str, version: int) -> bool:
    """Go on applying events; whether it was paused."""
    return bool(await connection.execute(_RESUME, projection, version) == "UPDATE 1")


async def park(connection: asyncpg.Connection, projection: str, version: int, poison: Poison) -> None:
    """Remember that a stream waits at this event."""
    event = poison.event
    position = event.position
    await connection.execute(
        _PARK,
        *(projection, version, event.stream, event.version, position.bucket, position.sequence, event.type),
        poison.error,
    )


async def parked(connection: asyncpg.Connection) -> list[Parked]:
    """Every parked stream."""
    return [Parked(*row) for row in await connection.fetch(_PARKED)]


async def wish(connection: asyncpg.Connection, projection: str, stream: UUID, what: str) -> bool:
    """Ask the projector to "retry" a parked stream, or to "skip" its event; whether it is parked."""
    return bool(await connection.fetch(_WISH, projection, stream, what))


async def checkpoints(connection: asyncpg.Connection, projection: str, version: int) -> dict[Bucket, int]:
    """The last sequence applied of each bucket; nothing if there is no such version."""
    return (await stored_checkpoints(connection, projection, version)).sequences


async def stored_checkpoints(connection: asyncpg.Connection, projection: str, version: int) -> StoredCheckpoints:
    """The checkpoints of a version, as they are stored. (SQL has `denizen_read.checkpoint` for one bucket.)"""
    rows: list[Any] = await connection.fetch(_STORED, projection, version)
    number, sequences = 0, dict[Bucket, int]()
    for base, buckets, ends in rows:
        number = number if base is None else base
        for bucket, end in zip(range(BUCKETS) if buckets is None else buckets, ends, strict=True):
            sequences[bucket] = max(end, sequences.get(bucket, 0))
    return StoredCheckpoints(number, sequences, max(0, len(rows) - 1))
