"""Statistics: users by country, status and plan as they are, and what happened in each hour.

The projection remembers of each user only what it is counted under. `plan` is the attribute of that name.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from msgspec import UNSET, Struct

from denizen.events.records import RecordedEvent
from denizen.projections.projection import Output, Projection
from denizen.projections.tables import Kind, Table
from denizen.users.events import (
    AttributesChanged,
    DataErased,
    ProfileChanged,
    UserDeleted,
    UserErased,
    UserReactivated,
    UserRegistered,
    UserSuspended,
)
from denizen.users.state import Status

PLAN: Final = "plan"
PLAN_CHARS_MAX: Final = 64


class CountedUser(NamedTuple):
    """What a user is counted under."""

    user_id: UUID
    status: str
    country: str
    plan: str


class UserCount(NamedTuple):
    """How many users have this value in this dimension: "status", "country" or "plan"; "" for none."""

    dimension: str
    value: str
    users: int


class HourCount(NamedTuple):
    """What happened in the hour that begins then."""

    hour: datetime
    sign_ups: int
    changes: int
    deletions: int
    erasures: int


def fold(user_id: UUID, row: CountedUser | None, events: Sequence[RecordedEvent], output: Output) -> CountedUser | None:
    """Count a user from under its old values to under its new ones, and each event in its hour."""
    after = row
    for recorded in events:
        after = _step(user_id, after, recorded.event)
        output.append(_hour(recorded))
    if after != row:
        if row is not None:
            output.rows += _counts(row.status, row.country, row.plan, -1)
        if after is not None:
            output.rows += _counts(after.status, after.country, after.plan, 1)
    return after


def _step(user_id: UUID, row: CountedUser | None, event: Any) -> CountedUser | None:
    if isinstance(event, UserRegistered):
        return CountedUser(user_id, Status.ACTIVE.word, event.country or "", _plan(event.attributes))
    if row is None or isinstance(event, (UserDeleted, UserErased, DataErased)):
        return None
    if isinstance(event, ProfileChanged) and event.country is not UNSET:
        return row._replace(country=event.country or "")
    if isinstance(event, AttributesChanged) and (PLAN in event.changed or PLAN in event.removed):
        return row._replace(plan=_plan(event.changed))
    if isinstance(event, UserSuspended):
        return row._replace(status=Status.SUSPENDED.word)
    if isinstance(event, UserReactivated):
        return row._replace(status=Status.ACTIVE.word)
    return row


def _plan(attributes: dict[str, Any]) -> str:
    plan = attributes.get(PLAN)
    return plan[:PLAN_CHARS_MAX] if isinstance(plan, str) else ""


@lru_cache(maxsize=4096)
def _counts(status: str, country: str, plan: str, users: int) -> tuple[UserCount, ...]:
    return UserCount("status", status, users), UserCount("country", country, users), UserCount("plan", plan, users)


def _hour(recorded: RecordedEvent) -> HourCount:
    at = recorded.recorded_at
    return _happened(recorded.type, at.date(), at.hour, at.tzinfo)


@lru_cache(maxsize=4096)
def _happened(kind: str, day: date, hour: int, zone: tzinfo | None) -> HourCount:
    return HourCount(datetime.combine(day, time(hour, tzinfo=zone)), *_HAPPENED.get(kind, _CHANGED))


# By the name of the event: one whose data are destroyed still happened.
_HAPPENED: Final = {
    UserRegistered.__name__: (1, 0, 0, 0),
    UserDeleted.__name__: (0, 0, 1, 0),
    UserErased.__name__: (0, 0, 0, 1),
}
_CHANGED: Final = (0, 1, 0, 0)


STATE: Final = Table("statistics_users", CountedUser)
USERS: Final = Table("statistics_counts", UserCount, kind=Kind.COUNT, key=("dimension", "value"))
HOURS: Final = Table("statistics_hours", HourCount, kind=Kind.COUNT, key=("hour",))
STATISTICS: Final = Projection("statistics", fold, state=STATE, outputs=[USERS, HOURS])

_COUNTS: Final = """
    select dimension, value, users from denizen_read.statistics_counts where users <> 0
    order by dimension, users desc, value
"""
_PERIODS: Final = """
    select date_trunc($1, hour, 'UTC') as start, sum(sign_ups)::bigint, sum(changes)::bigint, sum(deletions)::bigint,
           sum(erasures)::bigint
    from denizen_read.statistics_hours where hour >= $2 and hour < $3 group by start order by start
"""


class Period(Struct, frozen=True):
    """What happened in the hour or day that begins at `start`."""

    start: datetime
    sign_ups: int
    changes: int
    deletions: int
    erasures: int


class Statistics(Struct, frozen=True):
    """The users as they are, and what happened."""

    counts: dict[str, dict[str, int]]
    periods: list[Period]


async def read_statistics(connection: asyncpg.Connection, per: str, since: datetime, before: datetime) -> Statistics:
    """Counts by dimension and value, and periods ("hour" or "day") from `since` to `before`, in one snapshot."""
    counts: dict[str, dict[str, int]] = {"status": {}, "country": {}, "plan": {}}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for dimension, value, users in await connection.fetch(_COUNTS):
            counts.setdefault(dimension, {})[value] = users
        periods = [Period(*row) for row in await connection.fetch(_PERIODS, per, since, before)]
    return Statistics(counts, periods)


PERIODS: Final = {"hour": timedelta(days=2), "day": timedelta(days=60)}  # how far back, if nobody says
