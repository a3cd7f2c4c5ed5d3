"""A batch of events, folded in memory into the changes of each table: each row is written once, however many events.

Pure: no database, no clock. A stream whose fold fails is parked at the event that fails; the events before it count.
An erasure never needs the fold: after it there is no row, whatever the fold says, and no stream is parked.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from denizen.events.records import RecordedEvent
from denizen.projections.projection import Derived, Output, Projection, Row, is_of_user
from denizen.projections.tables import Kind, Table
from denizen.users.events import UserErased

Streams = dict[UUID, list[RecordedEvent]]


class Poison(Struct, frozen=True):
    """An event that a fold cannot take, and why: never a text of its own, which may hold personal data."""

    event: RecordedEvent
    error: str


def _lists() -> dict[Table, list[Row]]:
    return defaultdict(list)


class Changes(Struct):
    """What a batch changes, by table: rows that are new, rows to write that may be there, keys of rows to remove."""

    inserts: dict[Table, list[Row]] = field(default_factory=_lists)
    writes: dict[Table, list[Row]] = field(default_factory=_lists)
    deletes: dict[Table, list[Row]] = field(default_factory=_lists)
    clears: dict[Table, list[UUID]] = field(default_factory=dict)  # users that were erased, by table
    poison: list[Poison] = field(default_factory=list)

    def rows(self, table: Table) -> list[Row]:
        """All rows of a table that are new or written."""
        return [*self.inserts.get(table, ()), *self.writes.get(table, ())]

    def clear(self, tables: Iterable[Table], user_id: UUID) -> None:
        """Clear what these tables have of an erased user."""
        for table in tables:
            if table.kind is not Kind.LOG or table.personal:
                self.clears.setdefault(table, []).append(user_id)


def by_stream(events: Iterable[RecordedEvent], parked: Mapping[UUID, Any] | frozenset[UUID] = frozenset()) -> Streams:
    """The events of users, by user, in order; those of `parked` streams are left out, but for erasures."""
    streams: Streams = {}
    for event in events:
        if is_of_user(event) and (event.stream not in parked or ends_erased([event])):
            streams.setdefault(event.stream, []).append(event)
    return streams


def ends_erased(events: Sequence[RecordedEvent]) -> bool:
    """Whether the user of these events is erased: nothing comes after that."""
    return type(events[-1].event) is UserErased


def erasure(projection: Projection, user_id: UUID) -> Changes:
    """What an erasure changes if neither the fold nor its rows can be used."""
    changes = Changes()
    changes.clear(projection.tables, user_id)
    return changes


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
            before, erased = current.get(user_id), ends_erased(events)
            if output.rows:
                output = Output()
            try:
                after = fold(user_id, before, events, output)
                self._take(before, None if erased else after, output)
            except Exception:  # noqa: BLE001 - whatever a fold raises is about its stream
                self._take_singly(user_id, before, events)
            if erased:
                self._changes.clear(self._projection.outputs, user_id)

    def drain(self) -> dict[Table, list[Row]]:
        """The new rows so far, to be taken away now; what is counted stays until `finish`."""
        rows, self._changes.inserts = self._changes.inserts, _lists()
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
                (changes.inserts if before is None else changes.writes)[projection.state].append(after)
            for table, added, removed in derived:
                changes.inserts[table] += added
                if removed:
                    changes.deletes[table] += [table.key_of(row) for row in removed]
        for table, row in outputs:
            if table.kind is Kind.LOG:
                changes.inserts[table].append(row)
            else:
                self._counts[table][row] += 1

    def _take_singly(self, user_id: UUID, row: Any, events: list[RecordedEvent]) -> None:
        """Fold event by event, up to the one that fails; of those behind it, only an erasure."""
        before, kept, poison, erased = row, Output(), list[Poison](), ends_erased(events)
        for event in events:
            if poison and not (erased and event is events[-1]):
                continue
            output = Output()
            try:
                after = self._projection.fold(user_id, row, [event], output)
                Folder(self._projection)._take(before, after, output)
            except Exception as error:  # noqa: BLE001
                poison.append(Poison(event, _place(error)))
                continue
            row = after
            kept.rows += output.rows
        if erased:
            self._take(None, None, kept)
            if before is not None:
                self._changes.clear(self._projection.tables, user_id)
        else:
            self._changes.poison += poison
            self._take(before, row, kept)


def _place(error: Exception) -> str:
    """The type of an error, and where in the code it was raised."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(frame.f_code.co_filename).name}:{line}"


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
