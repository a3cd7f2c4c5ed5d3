"""What an operator does with read models: look at them, pause them, replay, compare, promote, roll back.

The same for the command line and the HTTP API. Only the loading itself is not here: it is done by processes of its own
(see `denizen.deployment.replaying`), one run of a projection at a time, which holds a lock of the read database for as
long as it works.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct, structs

from denizen import limits
from denizen.bus.shards import Shards
from denizen.errors import BadDeployment
from denizen.events.reading import read_stream
from denizen.events.records import RecordedEvent
from denizen.projections import registry
from denizen.projections.catalogue import catalogue, projection_of
from denizen.projections.projection import Projection
from denizen.projections.registry import Version
from denizen.projections.replay import run as steps
from denizen.projections.replay import verify as comparing
from denizen.projections.replay import work
from denizen.projections.replay.work import Plan, Replay
from denizen.projections.replay.worker import connect_bulk
from denizen.sharding.ids import bucket_of

_RUNNING_LOCK: Final = 0x64656E72  # "denr", with the hash of the projection's name
_VERSIONS: Final = """
    select v.projection, v.version, v.state, v.live, v.reason,
           told.lag_events, p.as_of, told.lag_ms_p50, told.lag_ms_p99
    from denizen_read.projections v
    left join denizen_read.progress p using (projection, version)
    left join denizen_read.progress told
        on told.projection = v.projection and told.version = v.version and v.state = 'running'
        and told.at > clock_timestamp() - make_interval(secs => $1)
    order by 1, 2
"""
_LOCKED: Final = """
    select count(*) > 0 from pg_locks
    where locktype = 'advisory' and classid = $1 and objid = hashtext($2)::bigint & 4294967295 and objsubid = 2
      and database = (select oid from pg_database where datname = current_database())
"""


class VersionState(Struct, frozen=True):
    """A version of a projection: what it does, and how fresh it is.

    How many events it lacks and how late they became visible is of now, or None: nobody applies events to it, or (for
    the latter) none came lately.
    """

    projection: str
    version: int
    state: str
    live: bool
    reason: str | None
    lag_events: int | None
    as_of: datetime | None
    lag_ms_p50: float | None
    lag_ms_p99: float | None


class Verified(Struct, frozen=True):
    """What a comparison found, and the events that explain it, by the user whose rows differ."""

    version: int
    live: int
    verdict: comparing.Verdict
    events: dict[UUID, list[RecordedEvent]]


class ReplayRuns(BadDeployment):
    """Somebody works at a replay of this projection already."""


class Control:
    """Over the read database at `connect_args`, and the shards for what only they know."""

    def __init__(self, connect_args: Mapping[str, Any], shards: Shards) -> None:
        self.connect_args = connect_args
        self._shards = shards

    def projection(self, name: str) -> Projection:
        """The projection of this name; `BadDeployment` says which there are."""
        return projection_of(name)

    async def overview(self) -> tuple[list[VersionState], list[registry.Parked]]:
        """Every version, and every parked stream."""
        async with self._read() as connection:
            return await version_states(connection), await registry.parked(connection)

    async def set_paused(self, name: str, *, paused: bool) -> bool:
        """Pause or resume every version of a projection; whether there was one to change.

        `BadDeployment` if this program cannot run any that could be resumed.
        """
        changed, refused, known = False, list[str](), catalogue()
        async with self._read() as connection:
            for version in await registry.versions(connection):
                if version.projection != name:
                    continue
                if paused:
                    changed |= await registry.pause(connection, name, version.version, "an operator paused it")
                elif (why := version.obstacle(known)) is None:
                    changed |= await registry.resume(connection, name, version.version)
                elif version.state == "paused":
                    refused.append(f"version {version.version} of {name} cannot go on: {why}")
        if refused and not changed:
            raise BadDeployment("; ".join(refused))
        return changed

    async def wish(self, name: str, stream: UUID, what: str) -> bool:
        """Ask the projector to "retry" or "skip"; whether the stream is parked."""
        async with self._read() as connection:
            return await registry.wish(connection, name, stream, what)

    async def plan(self, name: str, workers: int | None) -> Plan:
        """What a replay would do; changes nothing."""
        projection = self.projection(name)
        async with self._read() as connection:
            return await work.plan(connection, projection, await self._events(), workers_of(workers))

    async def begin(self, connection: asyncpg.Connection, name: str) -> Replay:
        """The replay to work at: the one that waits, or a new one. `connection` holds the lock of the run."""
        waiting = await work.unfinished(connection, name)
        if waiting is None:
            version = await work.begin(connection, self.projection(name), await self._events())
        else:
            version = waiting.version
            await work.set_state(connection, name, version, "loading", after=("paused", "failed"))
        return await work.replay_of(connection, name, version)

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[asyncpg.Connection]:
        """The only run of this projection; `ReplayRuns` if there is another one."""
        async with self._read() as connection:
            if not await connection.fetchval("select pg_try_advisory_lock($1, hashtext($2))", _RUNNING_LOCK, name):
                raise ReplayRuns(f"a replay of {name} runs already: see `denizen replay status`")
            yield connection

    async def runs(self, name: str) -> bool:
        """Whether somebody works at a replay of this projection now."""
        async with self._read() as connection:
            return bool(await connection.fetchval(_LOCKED, _RUNNING_LOCK, name))

    async def status(self) -> tuple[list[Replay], list[VersionState]]:
        """Every replay, and every version."""
        async with self._read() as connection:
            replays = await work.replays(connection)
            names = {each.projection for each in replays if each.state not in ("done", "paused", "failed")}
            alive = {name: await connection.fetchval(_LOCKED, _RUNNING_LOCK, name) for name in names}
            shown = [_shown(each, alive=alive.get(each.projection, True)) for each in replays]
            return shown, await version_states(connection)

    async def pause(self, name: str) -> None:
        """Have the workers stop after their parts."""
        async with self._read() as connection:
            waiting = await work.unfinished(connection, name)
            if waiting is None or not await work.set_state(
                connection, name, waiting.version, "paused", after=("loading",)
            ):
                raise BadDeployment(f"no replay of {name} is loading")

    async def waiting(self, name: str) -> Replay:
        """The replay that can be resumed; `BadDeployment` if there is none."""
        async with self._read() as connection:
            found = await work.unfinished(connection, name)
            if found is None:
                raise BadDeployment(f"no replay of {name} waits to be resumed")
            return found

    async def cancel(self, name: str, version: int | None) -> int:
        """Remove a version that is not live, or any of a projection that this program does not have; which."""
        unknown = name not in catalogue()
        async with self._read() as connection:
            if unknown and not any(each.projection == name for each in await registry.versions(connection)):
                self.projection(name)
            chosen = await self._chosen(connection, name, version)
            await registry.version_of(connection, name, chosen)
            await steps.cancel(connection, name, chosen, unknown=unknown)
            return chosen

    async def verify(self, name: str, version: int | None) -> Verified:
        """Compare with the live version, row for row."""
        projection = self.projection(name)
        async with self._read() as connection:
            chosen = await self._chosen(connection, name, version)
            live = await self._live(connection, name)
            _require_comparable(projection, live, await registry.version_of(connection, name, chosen))
            verdict = await comparing.verify(connection, projection, live.version, chosen)
            if verdict.equal or verdict.differences:
                await comparing.mark(connection, name, chosen, verified=verdict.equal)
        users = {found.user_id for found in verdict.differences if found.user_id is not None}
        events = {user: await self._history(user) for user in sorted(users)[: limits.replay_explained_max]}
        return Verified(chosen, live.version, verdict, events)

    async def promote(self, name: str, version: int | None, *, unverified: bool) -> int:
        """Make a version live; which."""
        projection = self.projection(name)
        async with self._read() as connection:
            replay = await work.replay_of(connection, name, version)
            if replay.verified_at is None and not unverified:
                raise BadDeployment(
                    f"version {replay.version} of {name} was not verified: `denizen replay verify {name}` first"
                )
            await steps.promote(connection, projection, replay.version)
            return replay.version

    async def rollback(self, name: str) -> int:
        """Make the version before live again; which."""
        projection = self.projection(name)
        async with self._read() as connection:
            return await steps.rollback(connection, projection)

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await connect_bulk(self.connect_args)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _events(self) -> int:
        return sum((await steps.heads(self._shards)).values())

    async def _history(self, user_id: UUID) -> list[RecordedEvent]:
        limit = limits.replay_explained_events_max
        return await self._shards.read(
            bucket_of(user_id), lambda connection: read_stream(connection, user_id, limit=limit)
        )

    async def _chosen(self, connection: asyncpg.Connection, name: str, version: int | None) -> int:
        return (await work.replay_of(connection, name)).version if version is None else version

    async def _live(self, connection: asyncpg.Connection, name: str) -> Version:
        live = [each for each in await registry.versions(connection) if each.projection == name and each.live]
        if not live:
            raise BadDeployment(f"{name} has no live version: the projector has not run yet")
        return live[0]


def _require_comparable(projection: Projection, live: Version, chosen: Version) -> None:
    name, other = projection.name, f"version {chosen.version} of {projection.name}"
    if chosen.live:
        raise BadDeployment(f"{other} is the live one: there is nothing to compare it with")
    if chosen.state == "building":
        raise BadDeployment(f"{other} is not whole yet: `denizen replay run {name}` goes on with it")
    if chosen.definition != projection.definition:
        raise BadDeployment(f"{other} cannot be compared: {registry.OTHER_DEFINITION}")
    if live.definition != chosen.definition:
        raise BadDeployment(
            f"{other} has other tables than the live one and cannot be compared with it: promote it with --unverified"
        )


async def version_states(connection: asyncpg.Connection) -> list[VersionState]:
    """Every version of every projection, as the read database has it."""
    return [VersionState(*row) for row in await connection.fetch(_VERSIONS, limits.projector_lag_window_s)]


def _shown(replay: Replay, *, alive: bool) -> Replay:
    """A replay whose run was killed does not load, whatever it said last."""
    if replay.state in ("loading", "indexing") and not alive:
        return structs.replace(replay, state="stopped")
    return replay


def workers_of(asked: int | None) -> int:
    """How many processes load side by side."""
    return max(1, min(asked or os.cpu_count() or 1, limits.replay_workers_max))
