"""The documents for operators: shards, the map, plans, rebalances, moves. The command line prints the same as JSON."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from denizen.limits import (
    control_weight_max,
    control_weight_min,
    moved_buckets_max,
    plan_moves_max,
    shard_dsn_chars_max,
)
from denizen.sharding.ids import BUCKETS

BucketNumber = Annotated[int, Meta(ge=0, lt=BUCKETS, description="A bucket, 0 to 4095.")]
ShardName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^/:]+$", description="A shard, such as `s1`.")]
Weight = Annotated[
    float,
    Meta(ge=control_weight_min, le=control_weight_max, description="The part of the shard, relative to the others."),
]
Whole = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]  # what every JSON reader can hold
By = Literal["users", "bytes", "requests"]
ShardState = Literal["joining", "active", "draining", "drained", "removed"]
MoveStage = Literal[
    "planned",
    "copying",
    "tailing",
    "fenced",
    "verified",
    "committed",
    "cleaning",
    "releasing",
    "aborting",
    "done",
    "cancelled",
    "failed",
]


class ShardDocument(Struct):
    """A shard: its status, its weight, and how many buckets the map gives it.

    `managed`: its server is ours to start and stop. `since`: when it came into this status.
    """

    id: str
    status: ShardState
    managed: bool
    weight: float
    buckets: int
    since: datetime


class ShardList(Struct):
    """The shards of the deployment; those that were removed stay in the list, for their names are never used again."""

    items: list[ShardDocument]


class NewShard(Struct, forbid_unknown_fields=True):
    """A shard to add: with a `dsn` a database of yours, empty and of its own; without, a server is made for it."""

    dsn: Annotated[str, Meta(min_length=1, max_length=shard_dsn_chars_max)] | None = None
    weight: Weight = 1.0


class ShardChanges(Struct, forbid_unknown_fields=True):
    """What to change about a shard."""

    weight: Weight


class Draining(Struct, forbid_unknown_fields=True):
    """How to drain a shard; `purge`: the data directory of its server may be removed in the end."""

    purge: bool = False


class Removing(Struct, forbid_unknown_fields=True):
    """How to remove a shard; `lost`: your word that the server of one that owns no buckets is gone for good."""

    lost: bool = False


class ShareDocument(Struct):
    """What a shard holds. `filled`: against its fair part of what is balanced; 1.0 is exactly its part."""

    buckets: Whole
    users: Whole
    bytes: Whole
    requests: float
    filled: float


class BalanceDocument(Struct):
    """How even the shards are. `imbalance`: the fullest shard against its fair part; 1.0 is perfect."""

    imbalance: float
    shards: dict[str, ShareDocument]


class ImbalanceDocument(Struct):
    """The fullest shard against its fair part, by users, by bytes and by requests; 1.0 is perfect."""

    users: float
    bytes: float
    requests: float


class MeasuredBalance(Struct):
    """How even the shards are, measured now. `filled` of a share is by users. `silent`: shards that did not answer, and
    why; the figures are of the others.
    """

    imbalance: ImbalanceDocument
    shards: dict[str, ShareDocument]
    silent: dict[str, str] = {}


class PlannedMoveDocument(Struct, forbid_unknown_fields=True):
    """A bucket to be moved, and what it weighed when the plan was made."""

    bucket: BucketNumber
    source: ShardName
    target: ShardName
    users: Whole
    bytes: Whole


class PlanDocument(Struct, forbid_unknown_fields=True):
    """What a rebalance would do, move by move, and does when it is run: a plan is the run.

    It is refused when the map has changed so that it does not fit any more. `estimate_s` is a guess.
    """

    id: UUID
    by: By
    map_version: Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
    moves: Annotated[list[PlannedMoveDocument], Meta(max_length=plan_moves_max)]
    users: Whole
    bytes: Whole
    estimate_s: Annotated[float, Meta(ge=0)]
    before: BalanceDocument
    after: BalanceDocument


class PlanRequest(Struct, forbid_unknown_fields=True):
    """What is to be even."""

    by: By = "users"


class MoveDocument(Struct):
    """A bucket on its way. `held_ms`: how long the last fence held its writes. `reason`: why it was given up."""

    id: UUID
    bucket: int
    source: str
    target: str
    users: int
    bytes: int
    stage: MoveStage
    attempt: int
    begun: datetime
    since: datetime
    holds: int
    held_ms: float
    reason: str | None


class HoldsDocument(Struct):
    """For how long writes to a bucket were held, over the moves so far; null while there are none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class RebalanceDocument(Struct):
    """A rebalance: the one under way, or the last one.

    `users` and `bytes` are of the whole plan, `users_moved` and `bytes_moved` of what is committed, and the rates are
    taken over the time since the start without pauses. `queued` have not begun; `moving` are under way; `last` are
    those that failed, then those that ended a moment ago.
    """

    id: UUID
    status: Literal["running", "paused", "cancelled", "done"]
    by: By
    started: datetime
    since: datetime
    moves: int
    committed: int
    cancelled: int
    failed: int
    queued: int
    users: int
    users_moved: int
    bytes: int
    bytes_moved: int
    users_per_s: float | None
    eta_s: float | None
    holds: HoldsDocument
    before: BalanceDocument
    after: BalanceDocument
    moving: list[MoveDocument]
    last: list[MoveDocument]


class RebalanceStatusDocument(Struct):
    """Whether there is a rebalance, and how far it is. `moving`: all moves that have not ended, of it or not."""

    rebalance: RebalanceDocument | None
    moving: list[MoveDocument]


class Cleaning(Struct):
    """Of how many moves the source's copy is now being removed, without waiting for the grace."""

    moves: int


class RebalanceSettings(Struct):
    """How gently buckets are moved. A rate or latency of 0 is no limit but the one that is worked out.

    `moves_per_server`: moves under way at a time on a server. `hold_budget_ms`: how long a fence may hold writes before
    it is given up, `holds_max` how often. `grace_s`: how long a source keeps its copy. `copy_events_per_s`,
    `clean_rows_per_s`: rates. `latency_ms`: of a shard's writes, above which moves slow down (0: three times what it
    was before).
    """

    moves_per_server: int
    hold_budget_ms: int
    holds_max: int
    grace_s: int
    copy_events_per_s: int
    clean_rows_per_s: int
    latency_ms: int


class SettingsChanges(Struct, forbid_unknown_fields=True):
    """The settings to change; the others stay. See `RebalanceSettings`."""

    moves_per_server: Whole | None = None
    hold_budget_ms: Whole | None = None
    holds_max: Whole | None = None
    grace_s: Whole | None = None
    copy_events_per_s: Whole | None = None
    clean_rows_per_s: Whole | None = None
    latency_ms: Whole | None = None


class BucketRange(Struct):
    """Buckets `first` to `last`, which one shard owns at one epoch."""

    first: int
    last: int
    shard: str
    epoch: int


class MapDocument(Struct):
    """Which shard owns each bucket. `version` rises with every change."""

    version: int
    shards: list[str]
    ranges: list[BucketRange]


class BucketDocument(Struct):
    """A bucket: who owns it, at which epoch, and its move if it is on its way."""

    bucket: int
    shard: str
    epoch: int
    move: MoveDocument | None


class BucketList(Struct):
    """Buckets, in order."""

    items: list[BucketDocument]


class BucketsToMove(Struct, forbid_unknown_fields=True):
    """Buckets to be moved to a shard, whatever that does to the balance."""

    buckets: Annotated[list[BucketNumber], Meta(min_length=1, max_length=moved_buckets_max)]
    to: ShardName
