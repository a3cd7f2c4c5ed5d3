"""A runner applies events to one version of one projection: each exactly once, in the order of its bucket.

    one transaction: checkpoints from the known to the new ones → current rows → fold → write → commit

The checkpoints are changed only where they still are what this runner believes. If one is not, somebody else runs the
same version: nothing is changed, and `Fenced` is raised. The locks of the checkpoints, held to the commit, keep any
other runner of the version from the same buckets meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from denizen.errors import DenizenError
from denizen.events.records import RecordedEvent
from denizen.invariants import invariant
from denizen.projections import registry
from denizen.projections.folding import Changes, Poison, Streams, by_stream, fold_streams
from denizen.projections.projection import Projection, Row
from denizen.projections.registry import Parked
from denizen.sharding.ids import Bucket

StreamReader = Callable[[UUID, int], Awaitable[list[RecordedEvent]]]  # the events of a stream after a version

_ADVANCE: Final = """
    update denizen_read.checkpoints c set sequence = step.after
    from unnest($3::smallint[], $4::bigint[], $5::bigint[]) as step (bucket, before, after)
    where c.projection = $1 and c.version = $2 and c.bucket = step.bucket and c.sequence = step.before
"""
_UNPARK: Final = "delete from denizen_read.parked where projection = $1 and version = $2 and stream = $3"
# What the database refuses about a row itself: the stream is parked like one whose fold fails.
_REFUSED: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class Fenced(DenizenError):
    """Another runner has advanced this version of the projection."""

    code, title, retryable = "fenced", "Another projector runs", True


class Runner:
    """One version of a projection, over a connection of its own. `open` it before use; after an error, open another."""

    def __init__(self, connection: asyncpg.Connection, projection: Projection, version: int) -> None:
        self.projection = projection
        self.version = version
        self.checkpoints: dict[Bucket, int] = {}
        self._parked: set[UUID] = set()
        self._connection = connection
        self._identity = (projection.name, version)

    async def open(self) -> None:
        """Learn how far the version is."""
        self.checkpoints = await registry.checkpoints(self._connection, *self._identity)
        known = await registry.parked(self._connection)
        self._parked = {each.stream for each in known if (each.projection, each.version) == self._identity}

    async def close(self) -> None:
        """Give the connection up."""
        self._connection.terminate()

    async def apply(self, events: Iterable[RecordedEvent]) -> int:
        """Apply what is new of these events; how many that were.

        After `Fenced`, or an error of asyncpg, open another runner.
        """
        fresh = self._fresh(events)
        if not fresh:
            return 0
        ends = {event.position.bucket: int(event.position.sequence) for event in fresh}
        try:
            poison = await self._transaction(by_stream(fresh, frozenset(self._parked)), ends, one_by_one=False)
        except _REFUSED:
            poison = await self._transaction(by_stream(fresh, frozenset(self._parked)), ends, one_by_one=True)
        self.checkpoints.update(ends)
        self._parked.update(each.event.stream for each in poison)
        return len(fresh)

    async def unpark(self, parked: Parked, read: StreamReader) -> bool:
        """Do what an operator wishes for a parked stream; whether it flows again."""
        bucket = parked.bucket
        after = parked.stream_version - (0 if parked.wish == "skip" else 1)
        events = [
            event for event in await read(parked.stream, after) if event.position.sequence <= self.checkpoints[bucket]
        ]
        streams = by_stream(events)
        async with self._connection.transaction():
            await self._advance({bucket: self.checkpoints[bucket]})
            poison = await self._fold_and_write(streams, one_by_one=True)
            if not poison:
                await self._connection.execute(_UNPARK, *self._identity, parked.stream)
        if not poison:
            self._parked.discard(parked.stream)
        return not poison

    def _fresh(self, events: Iterable[RecordedEvent]) -> list[RecordedEvent]:
        """The events after the checkpoints, which must be the very next ones."""
        fresh = []
        ends: dict[Bucket, int] = {}
        for event in events:
            bucket, sequence = event.position.bucket, event.position.sequence
            end = ends.get(bucket, self.checkpoints[bucket])
            if sequence > end:
                invariant(sequence == end + 1, "events come without holes", bucket=bucket, sequence=sequence, after=end)
                ends[bucket] = sequence
                fresh.append(event)
        return fresh

    async def _transaction(self, streams: Streams, ends: dict[Bucket, int], *, one_by_one: bool) -> list[Poison]:
        async with self._connection.transaction():
            await self._advance(ends)
            return await self._fold_and_write(streams, one_by_one=one_by_one)

    async def _advance(self, ends: dict[Bucket, int]) -> None:
        buckets = sorted(ends)
        done = await self._connection.execute(
            _ADVANCE,
            *self._identity,
            buckets,
            [self.checkpoints[bucket] for bucket in buckets],
            [ends[bucket] for bucket in buckets],
        )
        if done != f"UPDATE {len(buckets)}":
            raise Fenced(f"another projector runs version {self.version} of {self.projection.name}")

    async def _fold_and_write(self, streams: Streams, *, one_by_one: bool) -> list[Poison]:
        current = await self._current(list(streams))
        if not one_by_one:
            changes = fold_streams(self.projection, streams, current)
            await write_changes(self._connection, self.version, changes)
            poison = changes.poison
        else:
            poison = []
            for stream, events in streams.items():
                poison += await self._one(stream, events, current)
        for each in poison:
            await registry.park(self._connection, *self._identity, each)
        return poison

    async def _one(self, stream: UUID, events: Sequence[RecordedEvent], current: dict[UUID, Row]) -> list[Poison]:
        """One stream alone, event by event, so that what the database refuses is known by its event."""
        for event in events:
            changes = fold_streams(self.projection, {stream: [event]}, current)
            if changes.poison:
                return changes.poison
            try:
                async with self._connection.transaction():
                    await write_changes(self._connection, self.version, changes)
            except _REFUSED as error:
                return [Poison(event, f"{type(error).__name__}: {error}")]
            current.pop(stream, None)
            current.update(await self._current([stream]))
        return []

    async def _current(self, streams: list[UUID]) -> dict[UUID, Row]:
        state = self.projection.state
        if state is None or not streams:
            return {}
        rows: list[Any] = await self._connection.fetch(state.select(self.version), streams)
        return {row[0]: state.row(*row) for row in rows}


async def write_changes(connection: asyncpg.Connection, version: int, changes: Changes) -> None:
    """Write a batch's changes, one statement for each table, in the caller's transaction."""
    for table, keys in changes.deletes.items():
        if keys:
            await connection.execute(table.delete(version), *_columns(keys))
    for table, rows in changes.writes.items():
        if rows:
            await connection.execute(table.write(version), *_columns(rows))


def _columns(rows: Sequence[Row]) -> Iterable[tuple[Any, ...]]:
    return zip(*rows, strict=True)
