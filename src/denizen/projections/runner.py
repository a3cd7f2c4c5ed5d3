"""A runner applies events to one version of one projection: each exactly once, in the order of its bucket.

    prepare: current rows → fold        write, one transaction: checkpoints from the known to the new ones → rows

Where nothing came that changes a row (events of login names), the checkpoints are stored a moment later.

The checkpoints of a version have a number, which every transaction of its runner raises from what the runner knows. If
it is another one, somebody else runs the same version: nothing is changed, and `Fenced` is raised. The lock of the
number, held to the commit, keeps any other runner of the version away meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct, structs

from denizen import limits
from denizen.events.records import RecordedEvent
from denizen.projections import registry
from denizen.projections.arrivals import Arrivals
from denizen.projections.folding import Changes, Poison, Streams, by_stream, ends_erased, erasure, fold_streams
from denizen.projections.projection import Projection, Row
from denizen.projections.registry import Parked
from denizen.projections.writing import (
    Advance,
    Fenced,
    advance_checkpoints,
    apply_at_once,
    fold_checkpoints,
    write_changes,
)
from denizen.sharding.ids import Bucket

__all__ = ["Fenced", "Runner", "Step"]

StreamReader = Callable[[UUID, int], Awaitable[list[RecordedEvent]]]  # the events of a stream after a version

_UNPARK: Final = "delete from denizen_read.parked where projection = $1 and version = $2 and stream = any ($3)"
# What the database refuses about a row itself: the stream is parked like one whose fold fails.
_REFUSED: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class Step(Struct, frozen=True):
    """What a batch means for one version of a projection: folded, not written yet."""

    runner: "Runner"
    events: int  # that are new to it
    ends: dict[Bucket, int]
    streams: Streams
    advance: Advance
    changes: Changes
    freed: list[UUID]  # parked streams of users who are erased now

    @property
    def plain(self) -> bool:
        """Whether one statement can write it, together with others."""
        changes = self.changes
        return bool(self.streams) and not (changes.poison or changes.clears or self.freed)


class Runner:
    """One version of a projection. `open` it before use; after an error, open another.

    Several runners may share a connection: see `applying`.
    """

    def __init__(self, connection: asyncpg.Connection, projection: Projection, version: int) -> None:
        self.projection = projection
        self.version = version
        self.checkpoints: dict[Bucket, int] = {}
        self._number = 0  # of the checkpoints in the database
        self._pending: dict[Bucket, int] = {}  # those of events that change no row, not stored yet
        self._noted = 0  # advances in the database
        self._parked: set[UUID] = set()
        self._rows: dict[UUID, Row | None] = {}
        self._connection = connection
        self._identity = (projection.name, version)

    async def open(self) -> None:
        """Learn how far the version is."""
        stored = await registry.stored_checkpoints(self._connection, *self._identity)
        self.checkpoints, self._number, self._noted = stored.sequences, stored.number, stored.advances
        self._pending = {}
        known = await registry.parked(self._connection)
        self._parked = {each.stream for each in known if (each.projection, each.version) == self._identity}

    async def apply(self, events: Iterable[RecordedEvent]) -> int:
        """Apply what is new of these events, alone; how many that were.

        After `Fenced`, or an error of asyncpg, open another runner.
        """
        step = await self.prepare(Arrivals.of(events))
        await self.write(step)
        return step.events

    async def prepare(self, arrivals: Arrivals) -> Step:
        """Fold what is new of them; nothing is changed yet. The next batch comes after this one was written."""
        new = arrivals.after(self.checkpoints)
        streams, freed = new.streams, list[UUID]()
        if self._parked:
            freed = [stream for stream in self._parked & streams.keys() if ends_erased(streams[stream])]
            streams = {stream: events for stream, events in streams.items() if stream not in self._parked}
            streams |= {stream: new.streams[stream][-1:] for stream in freed}
        changes = fold_streams(self.projection, streams, await self._current(streams))
        advance = self._advance(self._pending | new.ends)
        return Step(self, new.count, new.ends, streams, advance, changes, freed)

    async def write(self, step: Step) -> None:
        """Write a step in a transaction of its own."""
        try:
            if step.plain:
                await apply_at_once(self._connection, [(step.advance, step.changes)])
            elif step.streams:
                await self._in_steps(step)
        except _REFUSED:
            self._rows.clear()
            poison = await self._one_by_one(step)
            step = structs.replace(step, changes=Changes(poison=poison))
        self.written(step)

    def written(self, step: Step) -> None:
        """A step is in the database, if it changes anything."""
        self.checkpoints.update(step.ends)
        if step.streams:
            self._advanced()
        else:
            self._pending.update(step.ends)
        self._parked.difference_update(step.freed)
        self._parked.update(each.event.stream for each in step.changes.poison)
        self._remember(step.changes)

    async def store(self) -> None:
        """Store the checkpoints of events that changed no row, and fold those of many batches into one row.

        They need not be in a transaction with rows, so they wait for this; lost, the same events change nothing again.
        """
        if self._noted >= limits.projector_advances_max:
            await fold_checkpoints(self._connection, self._advance(self.checkpoints))
            self._advanced()
            self._noted = 0
        elif self._pending:
            await advance_checkpoints(self._connection, self._advance(self._pending))
            self._advanced()

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
            await advance_checkpoints(self._connection, self._advance(self._pending))
            poison = await self._fold_one_by_one(streams)
            if not poison:
                await self._unpark([parked.stream])
        self._advanced()
        if not poison:
            self._parked.discard(parked.stream)
        return not poison

    def _advance(self, ends: dict[Bucket, int]) -> Advance:
        return Advance(*self._identity, self._number, ends)

    def _advanced(self) -> None:
        """The database has what was pending, under the next number."""
        self._number += 1
        self._noted += 1
        self._pending = {}

    async def _in_steps(self, step: Step) -> None:
        async with self._connection.transaction():
            await advance_checkpoints(self._connection, step.advance)
            await write_changes(self._connection, self.version, step.changes)
            for each in step.changes.poison:
                await registry.park(self._connection, *self._identity, each)
            await self._unpark(step.freed)

    async def _one_by_one(self, step: Step) -> list[Poison]:
        async with self._connection.transaction():
            await advance_checkpoints(self._connection, step.advance)
            await self._unpark(step.freed)
            return await self._fold_one_by_one(step.streams)

    async def _unpark(self, streams: list[UUID]) -> None:
        if streams:
            await self._connection.execute(_UNPARK, *self._identity, streams)

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
        erased, poison = ends_erased(events), list[Poison]()
        for event in events:
            if poison and not (erased and event is events[-1]):
                continue
            poison = await self._event(event, current)
            current.pop(stream, None)
            current.update(await self._read([stream]))
        if poison and erased:
            await write_changes(self._connection, self.version, erasure(self.projection, stream))
            return []
        return poison

    async def _event(self, event: RecordedEvent, current: dict[UUID, Row]) -> list[Poison]:
        changes = fold_streams(self.projection, {event.stream: [event]}, current)
        try:
            async with self._connection.transaction():
                await write_changes(self._connection, self.version, changes)
        except _REFUSED as error:
            return [Poison(event, f"{type(error).__name__} from the database")]
        return changes.poison

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
        self._rows.update((row[0], row) for row in changes.rows(state))
        self._rows.update((key[0], None) for key in changes.deletes.get(state, ()))
        self._rows.update((user, None) for user in changes.clears.get(state, ()))
