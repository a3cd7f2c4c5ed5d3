"""Activity and statistics: what happened, told by the read models."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from denizen.api.shapes import ActivityDocument, ActivityPage, PeriodDocument, StatisticsDocument
from denizen.errors import Invalid
from denizen.http.handlers.directory import reached, require_reads
from denizen.http.refusals import InvalidParameter
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request
from denizen.http.search_cursors import cursor_at, place_of
from denizen.http.services import Services
from denizen.limits import page_events_max, page_users_default, statistics_periods_max
from denizen.projections.activity import ACTIVITY, ActivityPlace, read_activity
from denizen.projections.statistics import PERIODS, STATISTICS, read_statistics
from denizen.sharding.ids import parse_user_id

_ACTOR_CHARS_MAX: Final = 200


async def get_activity(services: Services, request: Request) -> Reply:
    """GET /v1/activity"""
    reads = require_reads(services)
    limit = request.integer("limit", page_users_default, 1, page_events_max)
    user_id, actor = _user(request), _actor(request)
    since = request.time("since") if "since" in request.query else None
    place = place_of(request)
    before = None if place is None else ActivityPlace(*_activity_key(place))
    stale = not await reached(reads, ACTIVITY.name, request)
    async with reads.reader() as connection:
        freshness = await reads.freshness(connection, ACTIVITY.name)
        rows = await read_activity(
            connection, user_id=user_id, actor=actor, since=since, before=before, limit=limit + 1
        )
    items = [
        ActivityDocument(row.user_id, row.version, row.type, row.at, row.actor, row.changes.split())
        for row in rows[:limit]
    ]
    last = rows[limit - 1] if len(rows) > limit else None
    cursor = None if last is None else cursor_at((last.at, last.version), last.user_id, request)
    return json_reply(ActivityPage(items, cursor, freshness.as_of, stale))


async def get_statistics(services: Services, request: Request) -> Reply:
    """GET /v1/statistics"""
    reads = require_reads(services)
    per = request.query.get("per", "day")
    if per not in PERIODS:
        raise InvalidParameter("per", "per", f"`per` must be one of {', '.join(PERIODS)}")
    before = request.time("before") if "before" in request.query else datetime.now(UTC)
    since = request.time("since") if "since" in request.query else before - min(PERIODS[per], before - _YEAR_ONE)
    if (before - since).total_seconds() > statistics_periods_max * (3600 if per == "hour" else 86_400):
        raise InvalidParameter("since", "range", f"at most {statistics_periods_max} periods can be asked for at once")
    stale = not await reached(reads, STATISTICS.name, request)
    async with reads.reader() as connection:
        freshness = await reads.freshness(connection, STATISTICS.name)
        found = await read_statistics(connection, per, since, before)
    periods = [
        PeriodDocument(each.start, each.sign_ups, each.changes, each.deletions, each.erasures) for each in found.periods
    ]
    counts = found.counts
    users = sum(counts["status"].values())
    document = StatisticsDocument(
        users, counts["status"], counts["country"], counts["plan"], periods, freshness.as_of, stale
    )
    return json_reply(document)


_YEAR_ONE: Final = datetime(1, 1, 1, tzinfo=UTC)


def _user(request: Request) -> UUID | None:
    text = request.query.get("user")
    if text is None:
        return None
    try:
        return parse_user_id(text)
    except Invalid as error:
        raise InvalidParameter("user", "user_id", error.detail) from None


def _actor(request: Request) -> str | None:
    text = request.query.get("actor")
    if text is not None and not (0 < len(text) <= _ACTOR_CHARS_MAX and "\0" not in text):
        raise InvalidParameter(
            "actor", "text", f"`actor` must have 1 to {_ACTOR_CHARS_MAX} characters, none of them NUL"
        )
    return text


def _activity_key(place: tuple[tuple[str | datetime | int, ...], UUID]) -> tuple[datetime, UUID, int]:
    key, user_id = place
    if len(key) != 2 or not isinstance(key[0], datetime) or not isinstance(key[1], int):
        raise InvalidParameter("cursor", "cursor", "`cursor` is not one that this route gave")
    return key[0], user_id, key[1]
