"""Testing a projection without servers: a history of events, and a model that folds them in memory.

history = History()
ann = history.register(email="ann@example.com", attributes={"plan": "free"})
history.record(ann, AttributesChanged(changed={"plan": "gold"}))

model = MemoryModel(plans)
model.apply(history.events)
assert model.row(ann).plan == "gold"
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from denizen.bus.batches import Batch
from denizen.events.codec import EVENT_TYPES
from denizen.events.records import RecordedEvent
from denizen.invariants import invariant
from denizen.projections.folding import Poison, by_stream, fold_streams
from denizen.projections.projection import Projection, Row
from denizen.projections.tables import Kind, Table
from denizen.sharding.ids import BUCKETS, Bucket, Position, Sequence, UserId, bucket_of, mint_user_id
from denizen.users.events import DataErased, UserEvent, UserRegistered

_SCHEMAS = {each.struct: each.schema for each in EVENT_TYPES} | {DataErased: 1}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class History:
    """Events as the shards would have recorded them: positions, versions and times follow on."""

    def __init__(self, *, begin: datetime = BEGIN, step: timedelta = timedelta(seconds=1)) -> None:
        self.events: list[RecordedEvent] = []
        self._time, self._step = begin, step
        self._heads: dict[Bucket, int] = {}
        self._versions: dict[UUID, int] = {}
        self._users = 0

    def register(self, *, bucket: int | None = None, actor: str = "tests", **fields: Any) -> UserId:
        """A new user with these fields of `UserRegistered`; its id."""
        self._users += 1
        place = Bucket((self._users * 37 if bucket is None else bucket) % BUCKETS)
        user_id = mint_user_id(place, int(self._time.timestamp() * 1000))
        self.record(user_id, UserRegistered(**fields), actor=actor)
        return user_id

    def record(self, user_id: UUID, event: UserEvent, *, actor: str = "tests") -> RecordedEvent:
        """The next event of this user."""
        bucket = bucket_of(user_id)
        self._heads[bucket] = self._heads.get(bucket, 0) + 1
        self._versions[user_id] = self._versions.get(user_id, 0) + 1
        recorded = RecordedEvent(
            position=Position(bucket, Sequence(self._heads[bucket])),
            stream=user_id,
            version=self._versions[user_id],
            type=type(event).__name__,
            schema=_SCHEMAS[type(event)],
            recorded_at=self._time,
            command_id=uuid4(),
            actor=actor,
            correlation_id=None,
            event=event,
        )
        self._time += self._step
        self.events.append(recorded)
        return recorded

    async def stream(self, stream: UUID, after_version: int) -> list[RecordedEvent]:
        """The events of one stream after a version, as a runner asks for them."""
        return [event for event in self.events if event.stream == stream and event.version > after_version]


class MemoryModel:
    """The tables of one projection as Python values, filled by the code that fills the real ones."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self.checkpoints: dict[Bucket, int] = {}
        self.poison: dict[UUID, Poison] = {}
        self._tables: dict[Table, dict[Any, Row]] = {table: {} for table in projection.tables}

    def apply(self, events: Iterable[RecordedEvent], *, batch: int = 100) -> None:
        """Apply those of the events that are new, in batches; `InvariantBroken` if there is a hole."""
        fresh = [event for event in events if event.position.sequence > self.checkpoints.get(event.position.bucket, 0)]
        for start in range(0, len(fresh), batch):
            self._apply(fresh[start : start + batch])

    def row(self, user_id: UUID) -> Any:
        """The state row of a user; None if there is none."""
        invariant(self.projection.state is not None, "the projection has a state", projection=self.projection.name)
        return self._tables[self.projection.tables[0]].get((user_id,))

    def rows(self, table: Table | None = None) -> list[Any]:
        """All rows of a table, of the state if none is named, sorted by key; those of a LOG as they came."""
        chosen = table or self.projection.tables[0]
        rows = self._tables[chosen]
        return list(rows.values()) if chosen.kind is Kind.LOG else [rows[key] for key in sorted(rows)]

    def _apply(self, events: list[RecordedEvent]) -> None:
        for event in events:
            bucket, sequence = event.position.bucket, event.position.sequence
            invariant(
                sequence == self.checkpoints.get(bucket, 0) + 1, "events come without holes", position=event.position
            )
            self.checkpoints[bucket] = sequence
        state = self.projection.state
        current = {} if state is None else {key[0]: row for key, row in self._tables[state].items()}
        streams = by_stream(events, self.poison)
        changes = fold_streams(self.projection, streams, current)
        for table, keys in changes.deletes.items():
            for key in keys:
                self._tables[table].pop(key, None)
        for table in self._tables:
            self._write(table, changes.rows(table))
        for table, users in changes.clears.items():
            empty = dict.fromkeys(table.personal, "")
            for key, row in list(self._tables[table].items()):
                if table.kind is Kind.COUNT:
                    if not any(getattr(row, name) for name in table.numbers):
                        del self._tables[table][key]
                elif row[0] in users and table.kind is not Kind.LOG:
                    del self._tables[table][key]
                elif row[0] in users:
                    self._tables[table][key] = row._replace(**empty)  # type: ignore[attr-defined]
        self.poison = {stream: each for stream, each in self.poison.items() if stream not in streams}
        self.poison.update({each.event.stream: each for each in changes.poison})

    def _write(self, table: Table, rows: list[Row]) -> None:
        known = self._tables[table]
        for row in rows:
            key: Any = len(known) if table.kind is Kind.LOG else table.key_of(row)
            if table.kind is Kind.COUNT and key in known:
                sums = {name: getattr(known[key], name) + getattr(row, name) for name in table.numbers}
                known[key] = known[key]._replace(**sums)  # type: ignore[attr-defined]
            else:
                known[key] = row


class HistoryFeed:
    """A feed of a history that may go on growing; see `denizen.bus.batches.Feed`."""

    def __init__(self, history: History, starts: Mapping[Bucket, int]) -> None:
        self._history = history
        self._taken = dict(starts)
        self.silence_s = 0.0

    async def next_batch(self, max_events: int, max_wait_s: float) -> Batch:
        """The next events, else none after a moment."""
        heads = {event.position.bucket: int(event.position.sequence) for event in self._history.events}
        events: list[RecordedEvent] = []
        for event in self._history.events:
            bucket, sequence = event.position.bucket, event.position.sequence
            if len(events) < max_events and sequence == self._taken[bucket] + 1:
                self._taken[bucket] = sequence
                events.append(event)
        if not events:
            await asyncio.sleep(min(max_wait_s, 0.02))
        return Batch(events, heads)

    def seek(self, starts: Mapping[Bucket, int]) -> None:
        """Continue each of these buckets after the given sequence."""
        self._taken.update(starts)
