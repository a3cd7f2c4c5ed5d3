"""What the planner emits and the executor carries out: an immutable list of moves, and what they will have done.

A plan is the run: what `plan` prints is what `StartRebalance` takes, and it is refused if the map has changed so that
it no longer fits.
"""

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from denizen.sharding.ids import Bucket, ShardId


class BalanceBy(StrEnum):
    """What is to be even."""

    USERS = "users"
    BYTES = "bytes"
    REQUESTS = "requests"


class PlannedMove(Struct, frozen=True, array_like=True):
    """One bucket to be moved, and what it weighed when the plan was made."""

    bucket: Bucket
    source: ShardId
    target: ShardId
    users: int
    bytes: int


class Share(Struct, frozen=True):
    """What a shard holds, before or after: buckets, users, bytes, requests per second, and its fair part of what is
    balanced (1.0: exactly its part).
    """

    buckets: int
    users: int
    bytes: int
    requests: float
    filled: float


class Balance(Struct, frozen=True):
    """How even the shards are. `imbalance` is the fullest shard against its fair part; 1.0 is perfect."""

    imbalance: float
    shards: dict[ShardId, Share]


class Plan(Struct, frozen=True):
    """The moves in the order in which they begin, and what they come to. `estimate_s` is a guess, from `rates`."""

    id: UUID
    by: BalanceBy
    map_version: int
    moves: tuple[PlannedMove, ...]
    users: int
    bytes: int
    estimate_s: float
    before: Balance
    after: Balance

    @property
    def shards(self) -> list[ShardId]:
        """The shards that give or take a bucket, in order."""
        return sorted({shard for move in self.moves for shard in (move.source, move.target)})


class PlanSummary(Struct, frozen=True):
    """A plan without its list of moves: what stays in the state while it is carried out."""

    id: UUID
    by: BalanceBy
    moves: int
    users: int
    bytes: int
    estimate_s: float
    before: Balance
    after: Balance


def summary(plan: Plan) -> PlanSummary:
    """The plan without its moves."""
    return PlanSummary(
        plan.id, plan.by, len(plan.moves), plan.users, plan.bytes, plan.estimate_s, plan.before, plan.after
    )
