"""A batch of events, folded in memory into the changes of each table: each row is written once, however many events.

Pure: no database, no clock. A stream whose fold fails is parked at the event that fails; the events before it count.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from denizen.events.records import RecordedEvent
from denizen.projections.projection import Derived, Output, Projection, Row, is_of_user
from denizen.projections.tables import Kind, Table
from denizen.users.events import UserErased

Streams = dict[UUID, list[RecordedEvent]]


class Poison(Struct, frozen=True):
    """An event that a fold cannot take, and why."""

    event: RecordedEvent
    error: str


def _lists() -> dict[Table, list[Row]]:
    return defaultdict(list)


class Changes(Struct):
    """What a batch changes, by table: rows to write, keys of rows to remove."""

    writes: dict[Table, list[Row]] = field(default_factory=_lists)
    deletes: dict[Table, list[Row]] = field(default_factory=_lists)
    clears: dict[Table, list[UUID]] = field(default_factory=dict)  # users that were erased, by table
    poison: list[Poison] = field(default_factory=list)


def by_stream(events: Iterable[RecordedEvent], parked: Mapping[UUID, Any] | frozenset[UUID] = frozenset()) -> Streams:
    """The events of users, by user, in order; those of `parked` streams are left out."""
    streams: Streams = {}
    for event in events:
        if is_of_user(event) and event.stream not in parked:
            streams.setdefault(event.stream, []).append(event)
    return streams


def fold_streams(projection: Projection, streams: Streams, current: Mapping[UUID, Row]) -> Changes:
    """Fold each stream into its current row."""
    folder = Folder(projection)
    folder.fold(streams, current)
    return folder.finish()


class Folder:
    """Collects what the folds of one batch say."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._changes = Changes()
        self._counts = defaultdict[Table, Counter[Row]](Counter)  # how often each row came: most are the same few

    def fold(self, streams: Streams, current: Mapping[UUID, Row]) -> None:
        """Fold each stream into its current row."""
        fold, output = self._projection.fold, Output()
        for user_id, events in streams.items():
            before = current.get(user_id)
            if output.rows:
                output = Output()
            try:
                self._take(before, fold(user_id, before, events, output), output)
                self._clear(user_id, events)
            except Exception:  # noqa: BLE001 - whatever a fold raises is about its stream
                self._take_singly(user_id, before, events)

    def drain(self) -> dict[Table, list[Row]]:
        """The rows to write so far, to be taken away now; what is counted stays until `finish`."""
        rows, self._changes.writes = self._changes.writes, _lists()
        return rows

    def finish(self) -> Changes:
        """All changes that are left; what is counted is summed up."""
        for table, came in self._counts.items():
            self._changes.writes[table] += _sums(table, came)
        return self._changes

    def _take(self, before: Any, after: Any, output: Output) -> None:
        """What a fold made of one user's row; nothing of it is taken if this raises."""
        changes, projection = self._changes, self._projection
        outputs = [(projection.table_of[type(row)], row) for row in output.rows]
        if projection.state is not None and after is not before and after != before:
            derived = [(each.table, *_difference(each, before, after)) for each in projection.derived]
            if after is None:
                changes.deletes[projection.state].append((before[0],))
            else:
                changes.writes[projection.state].append(after)
            for table, added, removed in derived:
                changes.writes[table] += added
                if removed:
                    changes.deletes[table] += [table.key_of(row) for row in removed]
        for table, row in outputs:
            if table.kind is Kind.LOG:
                changes.writes[table].append(row)
            else:
                self._counts[table][row] += 1

    def _clear(self, user_id: UUID, events: list[RecordedEvent]) -> None:
        """When a user is erased, what was remembered of it is emptied, and counts of what nobody else has go."""
        if type(events[-1].event) is UserErased:
            for table in self._projection.outputs:
                if table.personal or table.kind is Kind.COUNT:
                    self._changes.clears.setdefault(table, []).append(user_id)

    def _take_singly(self, user_id: UUID, row: Any, events: list[RecordedEvent]) -> None:
        """Fold event by event, up to the one that fails."""
        before, kept = row, Output()
        self._clear(user_id, events)
        for event in events:
            output = Output()
            try:
                after = self._projection.fold(user_id, row, [event], output)
                Folder(self._projection)._take(before, after, output)
            except Exception as error:  # noqa: BLE001
                self._changes.poison.append(Poison(event, f"{type(error).__name__}: {error}"))
                break
            row = after
            kept.rows += output.rows
        self._take(before, row, kept)


def _difference(derived: Derived, before: Any, after: Any) -> tuple[Collection[Row], Collection[Row]]:
    if before is None:
        return derived.of(after), ()
    old, new = derived.of(before), () if after is None else derived.of(after)
    return ((), ()) if old == new else (set(new).difference(old), set(old).difference(new))


def _sums(table: Table, came: Counter[Row]) -> list[Row]:
    """The sum of the rows of each key."""
    sums: dict[Row, list[Any]] = {}
    for row, times in came.items():
        total = sums.setdefault(table.key_of(row), [0] * len(table.numbers))
        total[:] = [one + other * times for one, other in zip(total, table.numbers_of(row), strict=True)]
    return [_row(table, key, numbers) for key, numbers in sums.items()]


def _row(table: Table, key: Row, numbers: list[Any]) -> Row:
    row: Row = table.row(**dict(zip(table.key, key, strict=True)), **dict(zip(table.numbers, numbers, strict=True)))
    return row
