"""The routes of the read side: the feed of changes, activity, statistics, explanations; replays for operators."""

from typing import Final

from denizen import errors
from denizen.api import read_side, shapes
from denizen.changes.hub import Closing
from denizen.http import refusals
from denizen.http.handlers import changes, explain, read_models, replays
from denizen.http.route import ADMIN, READ, Query, Route
from denizen.limits import (
    changes_page_default,
    changes_page_max,
    changes_wait_s,
    page_events_max,
    replay_workers_max,
    search_text_chars_max,
)

TEXT: Final = {"type": "string", "minLength": 1, "maxLength": search_text_chars_max}
TIME: Final = {"type": "string", "format": "date-time"}
POSITION: Final = Query(
    "position",
    "Wait a moment until the answer has this position, of a write of this session, or all of several with commas "
    "between them; else it says that it is `stale`.",
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

_EXPLAIN: Final = (
    Route(
        name="explain_user", method="GET", path="/v1/users/{id}/explain", handler=explain.explain_user, scope=READ,
        summary="The events that made a read model's rows of a user, and whether the rows agree with them",
        reply=read_side.ExplanationDocument, problems=(errors.UserNotFound,),
        query=(Query("projection", "The read model.", {"type": "string", "default": "directory"}),),
    ),
)  # fmt: skip

_NOT_NOW: Final = (refusals.ProjectionNotFound, refusals.ReplayRefused)

_PROJECTIONS: Final = (
    Route(
        name="list_projections", method="GET", path="/v1/projections", handler=replays.list_projections, scope=ADMIN,
        summary="The read models: versions, lag, parked streams", reply=read_side.ProjectionList,
        problems=(refusals.ReplayRefused,),
    ),
    Route(
        name="pause_projection", method="POST", path="/v1/projections/{projection}:pause", scope=ADMIN, status=204,
        handler=replays.pause_projection, problems=_NOT_NOW,
        summary="Stop applying events to a read model; it goes on answering with what it has",
    ),
    Route(
        name="resume_projection", method="POST", path="/v1/projections/{projection}:resume", scope=ADMIN, status=204,
        handler=replays.resume_projection, problems=_NOT_NOW, summary="Go on applying events, from where it stopped",
    ),
    Route(
        name="retry_parked", method="POST", path="/v1/projections/{projection}/parked/{id}:retry", scope=ADMIN,
        status=204, handler=replays.retry_parked, problems=(*_NOT_NOW, errors.UserNotFound),
        summary="Try the event again that a parked user waits at",
    ),
    Route(
        name="skip_parked", method="POST", path="/v1/projections/{projection}/parked/{id}:skip", scope=ADMIN,
        status=204, handler=replays.skip_parked, problems=(*_NOT_NOW, errors.UserNotFound),
        summary="Go on behind the event that a parked user waits at",
    ),
)  # fmt: skip

_REPLAYS: Final = (
    Route(
        name="list_replays", method="GET", path="/v1/replays", handler=replays.list_replays, scope=ADMIN,
        summary="Every replay: how far, how fast, until when", reply=read_side.ReplayList,
        problems=(refusals.ReplayRefused,),
    ),
    Route(
        name="plan_replay", method="GET", path="/v1/replays/{projection}:plan", handler=replays.plan_replay,
        scope=ADMIN, summary="What a replay would do; changes nothing", reply=read_side.ReplayPlan, problems=_NOT_NOW,
        query=(Query("workers", "Processes that load side by side. By default one for each core.",
                     {"type": "integer", "minimum": 1, "maximum": replay_workers_max}),),
    ),
    Route(
        name="run_replay", method="POST", path="/v1/replays/{projection}:run", handler=replays.run_replay,
        scope=ADMIN, status=202, body=read_side.NewRun, body_required=False, reply=read_side.ReplayDocument,
        summary="Make a new version from all events, in a process of its own, or go on with the one under way",
        problems=_NOT_NOW,
    ),
    Route(
        name="pause_replay", method="POST", path="/v1/replays/{projection}:pause", handler=replays.pause_replay,
        scope=ADMIN, status=204, summary="Stop loading after the parts under way", problems=_NOT_NOW,
    ),
    Route(
        name="resume_replay", method="POST", path="/v1/replays/{projection}:resume", handler=replays.resume_replay,
        scope=ADMIN, status=202, body=read_side.NewRun, body_required=False, reply=read_side.ReplayDocument,
        summary="Go on with a replay that was paused, or whose run was killed", problems=_NOT_NOW,
    ),
    Route(
        name="cancel_replay", method="POST", path="/v1/replays/{projection}:cancel", handler=replays.cancel_replay,
        scope=ADMIN, body=read_side.ChosenVersion, body_required=False, reply=read_side.VersionDone,
        summary="Remove a version that is not live, finished or not", problems=_NOT_NOW,
    ),
    Route(
        name="verify_replay", method="POST", path="/v1/replays/{projection}:verify", handler=replays.verify_replay,
        scope=ADMIN, body=read_side.ChosenVersion, body_required=False, reply=read_side.Comparison,
        summary="Compare a version with the live one, row for row; takes up to a minute under writes",
        problems=_NOT_NOW,
    ),
    Route(
        name="promote_replay", method="POST", path="/v1/replays/{projection}:promote", handler=replays.promote_replay,
        scope=ADMIN, body=read_side.Promotion, body_required=False, reply=read_side.VersionDone,
        summary="Let readers see a version, from one commit to the next; the one before stays for a rollback",
        problems=_NOT_NOW,
    ),
    Route(
        name="roll_back_replay", method="POST", path="/v1/replays/{projection}:rollback", scope=ADMIN,
        handler=replays.roll_back_replay, reply=read_side.VersionDone,
        summary="Let readers see the version before again", problems=_NOT_NOW,
    ),
)  # fmt: skip

READ_SIDE: Final = (*_CHANGES, *_READ_MODELS, *_EXPLAIN, *_PROJECTIONS, *_REPLAYS)
