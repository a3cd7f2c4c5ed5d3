"""Activity: who did what to whom, when. One row for each event of a user, without any personal data of theirs.

`changes` names the fields that an event changed; their values are in the user's history alone. Of a user who is erased,
the names go too: attributes are named by applications.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from msgspec import UNSET, Struct

from denizen.events.records import RecordedEvent
from denizen.projections.projection import Output, Projection
from denizen.projections.tables import Kind, Table
from denizen.users.events import AttributesChanged, ProfileChanged, UserErased, UserRegistered

CHANGES_CHARS_MAX: Final = 500


class ActivityRow(NamedTuple):
    """An event of a user."""

    user_id: UUID
    at: datetime
    version: int
    actor: str
    type: str
    changes: str


def fold(_: UUID, __: None, events: Sequence[RecordedEvent], output: Output) -> None:
    """A row for each event."""
    for event in events:
        output.append(
            ActivityRow(event.stream, event.recorded_at, event.version, event.actor, event.type, _changes(event.event))
        )


def _changes(event: Any) -> str:
    """The names of what the event changed, separated by spaces."""
    if isinstance(event, AttributesChanged):
        names = [f"attributes.{name}" for name in (*event.changed, *event.removed)]
    elif isinstance(event, ProfileChanged):
        names = [name for name in event.__struct_fields__ if getattr(event, name) is not UNSET]
    elif isinstance(event, UserRegistered):
        names = [name for name in event.__struct_fields__ if getattr(event, name)]
    elif isinstance(event, UserErased):
        names = []
    else:
        names = [name for name in event.__struct_fields__ if name != "reason"]
    return " ".join(names)[:CHANGES_CHARS_MAX]


TABLE: Final = Table(
    "activity",
    ActivityRow,
    kind=Kind.LOG,
    key=("user_id", "version"),
    personal=("changes",),
    indexes=("(at, user_id, version)", "(actor, at, user_id, version)"),
)
ACTIVITY: Final = Projection("activity", fold, outputs=[TABLE])

_PAGE: Final = """
    select user_id, at, version, actor, type, changes from denizen_read.activity
    where ($1::uuid is null or user_id = $1) and ($2::text is null or actor = $2)
      and ($3::timestamptz is null or at >= $3)
      and ($4::timestamptz is null or (at, user_id, version) < ($4, $5, $6))
    order by at desc, user_id desc, version desc limit $7
"""
_FIRST_ID: Final = UUID(int=0)


class ActivityPlace(Struct, frozen=True):
    """Where a page ends."""

    at: datetime
    user_id: UUID = _FIRST_ID
    version: int = 0


async def read_activity(
    connection: asyncpg.Connection,
    *,
    user_id: UUID | None,
    actor: str | None,
    since: datetime | None,
    before: ActivityPlace | None,
    limit: int,
) -> list[ActivityRow]:
    """The newest first, behind `before`."""
    place = (None, _FIRST_ID, 0) if before is None else (before.at, before.user_id, before.version)
    return [ActivityRow(*row) for row in await connection.fetch(_PAGE, user_id, actor, since, *place, limit)]
