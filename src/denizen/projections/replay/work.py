"""The journal of replays: what is planned, what is done, who does what next."""

from datetime import datetime
from typing import Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.errors import BadDeployment
from denizen.projections import registry
from denizen.projections.projection import Projection
from denizen.projections.tables import SCHEMA, Kind
from denizen.sharding.ids import BUCKETS

_REPLAYS: Final = """
    select r.projection, r.version, r.state, r.events, r.started_at, r.loaded_at, r.indexed_at, r.verified_at, r.error,
           v.live, count(p), count(p) filter (where p.done), coalesce(sum(p.events), 0)::bigint,
           coalesce(sum(p.rows), 0)::bigint, coalesce(sum(p.seconds), 0), clock_timestamp()
    from denizen_read.replays r
    join denizen_read.projections v using (projection, version)
    left join denizen_read.replay_parts p using (projection, version)
    group by r.projection, r.version, v.live order by r.projection, r.version
"""
_PARTS: Final = """
    insert into denizen_read.replay_parts (projection, version, first, last)
    select $1, $2, first, least(first + $3, $4) - 1 from generate_series(0, $4 - 1, $3) as first
"""
_CLAIM: Final = """
    select p.first, p.last from denizen_read.replay_parts p join denizen_read.replays r using (projection, version)
    where p.projection = $1 and p.version = $2 and not p.done and r.state = 'loading'
    order by p.first limit 1 for update of p skip locked
"""
_DONE: Final = """
    update denizen_read.replay_parts set done = true, events = $4, rows = $5, seconds = $6
    where projection = $1 and version = $2 and first = $3
"""


class Replay(Struct, frozen=True):
    """A replay and how far it is. `seconds` is the working time of all its workers together."""

    projection: str
    version: int
    state: str
    events: int
    started_at: datetime
    loaded_at: datetime | None
    indexed_at: datetime | None
    verified_at: datetime | None
    error: str | None
    live: bool
    parts: int
    parts_done: int
    events_done: int
    rows: int
    seconds: float
    now: datetime

    @property
    def events_per_s(self) -> float | None:
        """How many events a second were loaded so far, by the clock."""
        elapsed = ((self.loaded_at or self.now) - self.started_at).total_seconds()
        return self.events_done / elapsed if self.events_done and elapsed > 0 else None

    @property
    def eta_s(self) -> float | None:
        """The seconds until everything is loaded, if it goes on so."""
        rate = self.events_per_s
        return None if rate is None or self.state != "loading" else max(0, self.events - self.events_done) / rate


class Plan(Struct, frozen=True):
    """What a replay would do."""

    projection: str
    version: int
    events: int
    rows: int
    workers: int
    parts: int
    seconds: float


async def replays(connection: asyncpg.Connection) -> list[Replay]:
    """Every replay whose version is still there."""
    return [Replay(*row) for row in await connection.fetch(_REPLAYS)]


async def replay_of(connection: asyncpg.Connection, projection: str, version: int | None = None) -> Replay:
    """The newest replay of a projection, or that of a version; `BadDeployment` if there is none."""
    found = [each for each in await replays(connection) if each.projection == projection]
    chosen = [each for each in found if version in (None, each.version)]
    if not chosen:
        raise BadDeployment(f"there is no replay of {projection}" + (f" version {version}" if version else ""))
    return chosen[-1]


async def is_there(connection: asyncpg.Connection, projection: str, version: int) -> bool:
    """Whether the replay was not cancelled."""
    return any((each.projection, each.version) == (projection, version) for each in await replays(connection))


async def unfinished(connection: asyncpg.Connection, projection: str) -> Replay | None:
    """The replay of this projection that waits to be gone on with."""
    found = [each for each in await replays(connection) if each.projection == projection and each.state != "done"]
    return found[-1] if found else None


async def plan(connection: asyncpg.Connection, projection: Projection, events: int, workers: int) -> Plan:
    """What a replay of so many events would be; changes nothing."""
    versions = [each for each in await registry.versions(connection) if each.projection == projection.name]
    live = [each for each in versions if each.live]
    rows = 0
    if live:
        for table in projection.tables:
            rows += await _rows(connection, f"{SCHEMA}.{table.at(live[0].version)}")
    past = [each for each in await replays(connection) if each.projection == projection.name and each.seconds > 0]
    rate = past[-1].events_done / past[-1].seconds if past else limits.replay_events_per_s_default
    version = max((each.version for each in versions), default=0) + 1
    buckets = buckets_of_part(events)
    return Plan(projection.name, version, events, rows, workers, -(-BUCKETS // buckets), events / rate / workers)


async def _rows(connection: asyncpg.Connection, table: str) -> int:
    """About how many rows the table has; exactly, if nobody has looked yet, as at one that is new or small."""
    known = await connection.fetchval("select reltuples::bigint from pg_class where oid = $1::regclass", table)
    return int(known if known > 0 else await connection.fetchval(f"select count(*) from {table}"))  # noqa: S608


def buckets_of_part(events: int) -> int:
    """How many buckets are done in one transaction: about `replay_part_events` in memory."""
    return max(1, min(limits.replay_part_buckets_max, limits.replay_part_events * BUCKETS // max(1, events)))


async def begin(connection: asyncpg.Connection, projection: Projection, events: int) -> int:
    """Make the new version and its parts; its number."""
    async with connection.transaction():
        await connection.execute("lock table denizen_read.replays in share row exclusive mode")
        waiting = await unfinished(connection, projection.name)
        if waiting is not None:
            return waiting.version
        versions = [each for each in await registry.versions(connection) if each.projection == projection.name]
        version = max((each.version for each in versions), default=0) + 1
        await registry.create_version(connection, projection, version, state="building", indexed=False)
        for table in projection.tables:
            if table.kind is not Kind.COUNT:  # into the others, rows are only ever copied, and no row changes
                await connection.execute(table.keep_tidy(version, tidy=False))
        await connection.execute(
            "insert into denizen_read.replays (projection, version, state, events) values ($1, $2, 'loading', $3)",
            projection.name,
            version,
            events,
        )
        await connection.execute(_PARTS, projection.name, version, buckets_of_part(events), BUCKETS)
    return version


async def claim(connection: asyncpg.Connection, projection: str, version: int) -> tuple[int, int] | None:
    """The next part that nobody works on, locked until the caller's transaction ends; None if there is none."""
    row = await connection.fetchrow(_CLAIM, projection, version)
    return None if row is None else (row["first"], row["last"])


async def part_done(
    connection: asyncpg.Connection, projection: str, version: int, first: int, *, events: int, rows: int, seconds: float
) -> None:
    """Remember a part as done, in the transaction of its rows."""
    await connection.execute(_DONE, projection, version, first, events, rows, seconds)


async def set_state(
    connection: asyncpg.Connection,
    projection: str,
    version: int,
    state: str,
    *,
    after: tuple[str, ...],
    error: str | None = None,
) -> bool:
    """Change the state of a replay that is in one of the states `after`; whether it was."""
    done = await connection.execute(
        "update denizen_read.replays set state = $3, error = $5,"
        " loaded_at = case when $3 = 'indexing' then coalesce(loaded_at, clock_timestamp()) else loaded_at end,"
        " indexed_at = case when $3 = 'done' then clock_timestamp() else indexed_at end"
        " where projection = $1 and version = $2 and state = any ($4)",
        projection,
        version,
        state,
        list(after),
        error,
    )
    return bool(done == "UPDATE 1")
