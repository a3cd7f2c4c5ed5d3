"""The routes of the read side: the feed of changes, activity, statistics."""

from typing import Final

from denizen.api import read_side, shapes
from denizen.changes.hub import Closing
from denizen.http import refusals
from denizen.http.handlers import changes, read_models
from denizen.http.route import READ, Query, Route
from denizen.limits import (
    changes_page_default,
    changes_page_max,
    changes_wait_s,
    page_events_max,
    search_text_chars_max,
)

TEXT: Final = {"type": "string", "minLength": 1, "maxLength": search_text_chars_max}
TIME: Final = {"type": "string", "format": "date-time"}
POSITION: Final = Query(
    "position",
    "Wait a moment until the answer has this position, of a write of this session; else it says that it is `stale`.",
    {"type": "string"},
)


def limit(largest: int, default: int = 100) -> Query:
    """How many items a page has."""
    schema = {"type": "integer", "minimum": 1, "maximum": largest, "default": default}
    return Query("limit", "How many at most.", schema)


_CHANGES: Final = (
    Route(
        name="get_changes", method="GET", path="/v1/changes", handler=changes.get_changes, scope=READ,
        summary="Every change of every user, once, from any place on: a page, or server-sent events",
        reply=read_side.ChangePage, streams=True, problems=(refusals.TooManyFeeds, Closing),
        query=(
            Query("cursor", "`next_cursor` of the page before, or the `id` of the last message. Opaque; never expires.",
                  {"type": "string"}),
            Query("from", "Without a cursor: where to begin.",
                  {"type": "string", "enum": list(changes.STARTS), "default": "now"}),
            Query("wait_s", "How long to wait for a first change; for a page only.",
                  {"type": "integer", "minimum": 0, "maximum": int(changes_wait_s), "default": 0}),
            Query("types", "These types of events only, with commas between them.", {"type": "string"}),
            Query("buckets", "Users of these buckets only, such as `0-1023`: consumers may share the work. A cursor "
                  "keeps to its buckets.", {"type": "string", "pattern": r"^\d{1,4}-\d{1,4}$"}),
            limit(changes_page_max, changes_page_default),
        ),
    ),
)  # fmt: skip

_READ_MODELS: Final = (
    Route(
        name="get_activity", method="GET", path="/v1/activity", handler=read_models.get_activity, scope=READ,
        summary="Who did what to which user, the newest first", reply=shapes.ActivityPage,
        query=(
            Query("user", "Of this user only.", {"type": "string", "format": "uuid"}),
            Query("actor", "By this actor only.", {"type": "string", "minLength": 1, "maxLength": 200}),
            Query("since", "At this time or later.", TIME),
            Query("cursor", "`next_cursor` of the page before. Opaque; never expires.", {"type": "string"}),
            limit(page_events_max),
            POSITION,
        ),
    ),
    Route(
        name="get_statistics", method="GET", path="/v1/statistics", handler=read_models.get_statistics, scope=READ,
        summary="How many users there are, and what happened in each hour or day", reply=shapes.StatisticsDocument,
        query=(
            Query("per", "The length of a period.", {"type": "string", "enum": ["day", "hour"], "default": "day"}),
            Query("since", "From this time on. By default 60 days or 48 hours before the end.", TIME),
            Query("before", "Until this time. By default now.", TIME),
            POSITION,
        ),
    ),
)  # fmt: skip

READ_SIDE: Final = (*_CHANGES, *_READ_MODELS)
