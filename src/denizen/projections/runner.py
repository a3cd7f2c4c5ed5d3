"""A runner applies events to one version of one projection: each exactly once, in the order of its bucket.

    one transaction: checkpoints from the known to the new ones → current rows → fold → write → commit

Checkpoints of buckets in which nothing came that changes a row (events of login names) are stored a moment later.

The checkpoints are changed only where they still are what this runner believes. If one is not, somebody else runs the
same version: nothing is changed, and `Fenced` is raised. The locks of the checkpoints, held to the commit, keep any
other runner of the version from the same buckets meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.errors import DenizenError
from denizen.events.records import RecordedEvent
from denizen.invariants import invariant
from denizen.projections import registry
from denizen.projections.folding import Changes, Poison, Streams, by_stream, fold_streams
from denizen.projections.projection import Projection, Row
from denizen.projections.registry import Parked
from denizen.projections.writing import ADVANCE, FENCED, apply_at_once, write_changes
from denizen.sharding.ids import Bucket

StreamReader = Callable[[UUID, int], Awaitable[list[RecordedEvent]]]  # the events of a stream after a version

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
        self._stored: dict[Bucket, int] = {}  # the same, as the database has them
        self._parked: set[UUID] = set()
        self._rows: dict[UUID, Row | None] = {}
        self._connection = connection
        self._identity = (projection.name, version)

    async def open(self) -> None:
        """Learn how far the version is."""
        self.checkpoints = await registry.checkpoints(self._connection, *self._identity)
        self._stored = dict(self.checkpoints)
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
        streams = by_stream(fresh, frozenset(self._parked))
        touched = {events[0].position.bucket for events in streams.values()}
        self.checkpoints.update(ends)
        if touched:
            await self._write(streams, {bucket: ends[bucket] for bucket in touched})
        return len(fresh)

    async def store(self) -> None:
        """Store the checkpoints of buckets in which nothing came lately that changes a row.

        They need not be in a transaction with rows, so they wait for this; lost, the same events change nothing again.
        """
        ends = {bucket: end for bucket, end in self.checkpoints.items() if end != self._stored[bucket]}
        if ends:
            await self._advance(ends)
            self._stored.update(ends)

    async def _write(self, streams: Streams, ends: dict[Bucket, int]) -> None:
        current = await self._current(streams)
        changes = fold_streams(self.projection, streams, current)
        poison = changes.poison
        try:
            if poison or changes.clears:
                await self._in_steps(ends, changes)
            else:
                await self._at_once(ends, changes)
        except _REFUSED:
            self._rows.clear()
            poison = await self._one_by_one(streams, ends)
        else:
            self._remember(changes)
        self._stored.update(ends)
        self._parked.update(each.event.stream for each in poison)

    async def unpark(self, parked: Parked, read: StreamReader) -> bool:
        """Do what an operator wishes for a parked stream; whether it flows again."""
        bucket = parked.bucket
        after = parked.stream_version - (0 if parked.wish == "skip" else 1)
        events = [
            event for event in await read(parked.stream, after) if event.position.sequence <= self.checkpoints[bucket]
        ]
        streams = by_stream(events)
        self._rows.pop(parked.stream, None)
        async with self._connection.transaction():
            await self._advance({bucket: self.checkpoints[bucket]})
            poison = await self._fold_one_by_one(streams)
            if not poison:
                await self._connection.execute(_UNPARK, *self._identity, parked.stream)
        self._stored[bucket] = self.checkpoints[bucket]
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

    async def _at_once(self, ends: dict[Bucket, int], changes: Changes) -> None:
        buckets = sorted(ends)
        steps = (buckets, [self._stored[bucket] for bucket in buckets], [ends[bucket] for bucket in buckets])
        try:
            await apply_at_once(self._connection, self._identity, steps, changes)
        except asyncpg.PostgresError as error:
            if error.sqlstate == FENCED:
                raise self._fenced() from error
            raise

    async def _in_steps(self, ends: dict[Bucket, int], changes: Changes) -> None:
        async with self._connection.transaction():
            await self._advance(ends)
            await write_changes(self._connection, self.version, changes)
            for each in changes.poison:
                await registry.park(self._connection, *self._identity, each)

    async def _one_by_one(self, streams: Streams, ends: dict[Bucket, int]) -> list[Poison]:
        async with self._connection.transaction():
            await self._advance(ends)
            return await self._fold_one_by_one(streams)

    async def _advance(self, ends: dict[Bucket, int]) -> None:
        buckets = sorted(ends)
        done = await self._connection.execute(
            ADVANCE,
            *self._identity,
            buckets,
            [self._stored[bucket] for bucket in buckets],
            [ends[bucket] for bucket in buckets],
        )
        if done != f"UPDATE {len(buckets)}":
            raise self._fenced()

    def _fenced(self) -> Fenced:
        return Fenced(f"another projector runs version {self.version} of {self.projection.name}")

    async def _fold_one_by_one(self, streams: Streams) -> list[Poison]:
        current = await self._read(list(streams))
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
            current.update(await self._read([stream]))
        return []

    async def _current(self, streams: Streams) -> dict[UUID, Row]:
        """The rows of these streams: those that are remembered, none where a stream begins, and the others read."""
        if self.projection.state is None:
            return {}
        unknown = [stream for stream, events in streams.items() if stream not in self._rows and events[0].version > 1]
        rows = await self._read(unknown)
        for stream in streams:
            if (row := self._rows.get(stream)) is not None:
                rows[stream] = row
        return rows

    async def _read(self, streams: list[UUID]) -> dict[UUID, Row]:
        state = self.projection.state
        if state is None or not streams:
            return {}
        rows: list[Any] = await self._connection.fetch(state.select(self.version), streams)
        return {row[0]: state.row(*row) for row in rows}

    def _remember(self, changes: Changes) -> None:
        """Keep the rows just written: nobody else writes them without advancing a checkpoint, which fences us."""
        state = self.projection.state
        if state is None:
            return
        if len(self._rows) > limits.projector_rows_remembered_max:
            self._rows.clear()
        self._rows.update((row[0], row) for row in changes.writes.get(state, ()))
        self._rows.update((key[0], None) for key in changes.deletes.get(state, ()))
