"""A projection: a pure function from the events of a user to its row, and the tables that it fills.

    def fold(user_id, row, events, output) -> row

`row` is the user's row so far, None at first; `events` are the next ones of that user, in order, at least one. The
answer is the row afterwards, None for no row. What is to be remembered of single events, or counted over all users,
is given to `output`. A fold has no side effects and reads no clock: it is repeated whenever something went wrong, and
over the whole history by a replay.

A fold that raises parks its user's stream at that event; the others go on. After `UserErased` there is no row, whatever
the fold says.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from denizen.errors import BadConfiguration
from denizen.events.codec import EVENT_TYPES, LOGIN_NAME_EVENTS_FROM
from denizen.events.records import RecordedEvent
from denizen.projections.tables import Kind, Table
from denizen.users.events import DataErased

Row = tuple[Any, ...]


class Output:
    """What a fold says beside its row."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, row: Row) -> None:
        """A row for the LOG table, or numbers to add in the COUNT table, that is declared with this row's type."""
        self.rows.append(row)


Fold = Callable[[UUID, Any, Sequence[RecordedEvent], Output], Any]


class Derived(Struct, frozen=True):
    """A table whose rows follow from each user's state row alone: `of(row)`, without repetitions."""

    table: Table
    of: Callable[[Any], Sequence[Row]]


class Projection:
    """A read model. `state` is None where the projection only remembers or counts."""

    def __init__(
        self,
        name: str,
        fold: Fold,
        *,
        state: Table | None = None,
        derived: Sequence[Derived] = (),
        outputs: Sequence[Table] = (),
    ) -> None:
        self.name, self.fold, self.state = name, fold, state
        self.derived, self.outputs = tuple(derived), tuple(outputs)
        self.table_of = {table.row: table for table in self.outputs}
        self._check()

    def __repr__(self) -> str:
        return f"Projection({self.name!r})"

    @property
    def tables(self) -> tuple[Table, ...]:
        """All its tables."""
        own = () if self.state is None else (self.state,)
        return (*own, *(each.table for each in self.derived), *self.outputs)

    @property
    def definition(self) -> str:
        """All that decides whether stored tables still fit this program."""
        return ";".join(table.definition for table in self.tables)

    def _check(self) -> None:
        names = [table.name for table in self.tables]
        wrong = [each for each in self.derived if each.table.kind is not Kind.DERIVED]
        wrong_outputs = [table for table in self.outputs if table.kind not in (Kind.LOG, Kind.COUNT)]
        if not names or len(set(names)) != len(names) or len(self.table_of) != len(self.outputs):
            raise BadConfiguration(
                f"projections: {self.name} needs tables, each with a name and a type of rows its own"
            )
        if wrong or wrong_outputs or (self.state is not None and self.state.kind is not Kind.STATE):
            raise BadConfiguration(f"projections: a table of {self.name} has a kind that does not fit its place")
        if self.derived and self.state is None:
            raise BadConfiguration(f"projections: {self.name} derives tables from a state that it does not have")


# The types that no projection sees: a feed of the projector need not bring them.
PASSED: Final = frozenset(each.name for each in EVENT_TYPES if each.number > LOGIN_NAME_EVENTS_FROM)
_USER_EVENTS: Final = frozenset(each.struct for each in EVENT_TYPES if each.number <= LOGIN_NAME_EVENTS_FROM) | {
    DataErased
}


def is_of_user(event: RecordedEvent) -> bool:
    """Whether the event is of a user, not of a login name's own stream: projections see only those."""
    return type(event.event) in _USER_EVENTS
