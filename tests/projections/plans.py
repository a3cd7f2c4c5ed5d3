"""A projection for tests: it uses every kind of table, and takes offence at the plan "poison"."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from denizen.events.records import RecordedEvent
from denizen.projections import Derived, Kind, Output, Projection, Table
from denizen.users.events import AttributesChanged, UserDeleted, UserRegistered


class PlanRow(NamedTuple):
    user_id: UUID
    changes: int
    plan: str
    details: dict[str, Any] | None


class WordRow(NamedTuple):
    user_id: UUID
    word: str


class ChangeRow(NamedTuple):
    user_id: UUID
    version: int
    at: datetime
    type: str


class PlanCount(NamedTuple):
    plan: str
    users: int


def fold(user_id: UUID, row: PlanRow | None, events: Sequence[RecordedEvent], output: Output) -> PlanRow | None:
    for recorded in events:
        before, event = row, recorded.event
        if isinstance(event, UserRegistered):
            row = PlanRow(user_id, 0, event.attributes.get("plan", "free"), None)
        elif isinstance(event, AttributesChanged) and row is not None:
            row = row._replace(changes=row.changes + 1, plan=event.changed.get("plan", row.plan), details=event.changed)
        elif isinstance(event, UserDeleted):
            row = None
        if row is not None and row.plan == "poison":
            raise ValueError("this plan is poison")
        output.append(ChangeRow(user_id, recorded.version, recorded.recorded_at, recorded.type))
        if before is not None:
            output.append(PlanCount(before.plan, -1))
        if row is not None:
            output.append(PlanCount(row.plan, 1))
    return row


def words(row: PlanRow) -> list[WordRow]:
    return [WordRow(row.user_id, word) for word in set(row.plan.split())]


STATE = Table("plans", PlanRow, indexes=("(plan, user_id)",))
WORDS = Table("plan_words", WordRow, kind=Kind.DERIVED, key=("word", "user_id"))
CHANGES = Table("plan_changes", ChangeRow, kind=Kind.LOG, key=("user_id", "version"))
COUNTS = Table("plan_counts", PlanCount, kind=Kind.COUNT, key=("plan",))
PLANS = Projection("plans", fold, state=STATE, derived=[Derived(WORDS, words)], outputs=[CHANGES, COUNTS])
