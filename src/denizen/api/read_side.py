"""The documents of the read side: the feed of changes, read models and their replays, explanations."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from denizen.api.shapes import EventDocument, PositionToken, Version
from denizen.limits import replay_workers_max


class ChangeDocument(Struct):
    """What happened to a user. `position` names it for ever; those of one bucket come in order."""

    user_id: UUID
    version: Version
    position: PositionToken
    type: str
    schema: int
    recorded_at: datetime
    actor: str
    command_id: UUID
    correlation_id: UUID | None
    data: dict[str, Any]


class ChangeBatch(Struct):
    """The next changes. `lag_events`: how many events were committed behind them when this was sent."""

    items: list[ChangeDocument]
    lag_events: int


class ChangePage(ChangeBatch):
    """The next changes, and the cursor to go on with: keep it together with what you made of them.

    `more`: there were more at once. The cursor goes on where this page ends, even if the page is empty.
    """

    next_cursor: str
    more: bool


class VersionDocument(Struct):
    """A version of a read model. `live`: the one that readers see. `reason`: why it is paused. `lag_events`: null while
    nobody applies events to it. `lag_ms_p50`, `lag_ms_p99`: how late the events of the last minute became visible.
    """

    projection: str
    version: int
    state: Literal["building", "running", "paused"]
    live: bool
    reason: str | None
    lag_events: int | None
    as_of: datetime | None
    lag_ms_p50: float | None
    lag_ms_p99: float | None


class ParkedStream(Struct):
    """A user whose events a read model cannot take from `at_version` on; those of the others flow."""

    projection: str
    version: int
    user_id: UUID
    at_version: int
    position: PositionToken
    type: str
    error: str
    attempts: int
    parked_at: datetime
    wish: Literal["retry", "skip"] | None


class ProjectionList(Struct):
    """The read models, version by version, and the streams that are parked."""

    versions: list[VersionDocument]
    parked: list[ParkedStream]


class ReplayPlan(Struct):
    """What a replay would do: `seconds` is what it is expected to take."""

    projection: str
    version: int
    events: int
    rows: int
    workers: int
    parts: int
    seconds: float


class ReplayDocument(Struct):
    """A replay and how far it is. `progress` is from 0 to 1; `eta_s` the seconds until everything is loaded.

    `stopped`: it loaded, and nobody works at it any more; run it again, and it goes on.
    """

    projection: str
    version: int
    state: Literal["loading", "paused", "failed", "stopped", "indexing", "done"]
    live: bool
    progress: float
    events: int
    events_done: int
    rows: int
    parts: int
    parts_done: int
    events_per_s: float | None
    eta_s: float | None
    started_at: datetime
    loaded_at: datetime | None
    indexed_at: datetime | None
    verified_at: datetime | None
    error: str | None


class ReplayList(Struct):
    """Every replay whose version is still there."""

    items: list[ReplayDocument]


Workers = Annotated[int, Meta(ge=1, le=replay_workers_max, description="Processes that load side by side.")]
VersionNumber = Annotated[int, Meta(ge=1, le=2**31 - 1, description="By default that of the newest replay.")]


class NewRun(Struct, forbid_unknown_fields=True):
    """How to run a replay. `workers`: by default one for each core."""

    workers: Workers | None = None


class ChosenVersion(Struct, forbid_unknown_fields=True):
    """Which version is meant."""

    version: VersionNumber | None = None


class Promotion(Struct, forbid_unknown_fields=True):
    """Which version is to be live; `unverified`: even if it was not compared with the live one."""

    version: VersionNumber | None = None
    unverified: bool = False


class VersionDone(Struct):
    """The version to which it was done."""

    projection: str
    version: int


class RowDifference(Struct):
    """A row that differs, as text in each version; null where it is missing."""

    table: str
    key: list[str]
    user_id: UUID | None
    live: str | None
    new: str | None


class Comparison(Struct):
    """A version beside the live one. `undecided`: rows that were on the move until the end.

    `whole`: all tables were compared; counts over all users can be only while nothing changes. `events`: what happened
    to the users whose rows differ, by their ids.
    """

    projection: str
    version: int
    live_version: int
    equal: bool
    differences: list[RowDifference]
    undecided: int
    whole: bool
    events: dict[str, list[EventDocument]]


class ExplainedEvent(EventDocument):
    """An event of the user. `applied`: it is in the rows."""

    applied: bool


class ExplainedRows(Struct):
    """What a table has of the user, and what the events give.

    `stored` is null for counts over all users: `expected` is then what this user adds to them.
    """

    table: str
    stored: list[dict[str, Any]] | None
    expected: list[dict[str, Any]]
    agrees: bool


class ExplanationDocument(Struct):
    """Why a read model's rows of a user are as they are. `agrees`: they are what the events up to `checkpoint` give.

    `agrees` is null for a user with more events than are folded here.
    """

    user_id: UUID
    projection: str
    version: int
    checkpoint: PositionToken
    agrees: bool | None
    tables: list[ExplainedRows]
    events: list[ExplainedEvent]
    parked: ParkedStream | None
