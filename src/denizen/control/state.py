"""The state of the control plane: what every voter holds, and what everybody else is told.

All of it is immutable: a command makes a new state that shares what did not change, so that a state once read (by a
watch, by a snapshot in a thread, by the executor across an await) never changes underneath. Fields added later come
last, with a default: an old snapshot then still reads.
"""

from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen.control.plan import PlannedMove, PlanSummary
from denizen.invariants import invariant
from denizen.moving.move import Move
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import Bucket, Epoch, ShardId

STATE_FORMAT: Final = 1


class ShardStatus(StrEnum):
    """The life of a shard, in order."""

    JOINING = "joining"  # named; its server is being made or prepared
    ACTIVE = "active"
    DRAINING = "draining"  # gives all its buckets away, takes none
    DRAINED = "drained"  # owns nothing and holds nothing; its server may stop
    REMOVED = "removed"  # its server has stopped; its id is never used again


class Stage(StrEnum):
    """The stages of a move. Each is entered by one committed command whose precondition was already true."""

    PLANNED = "planned"  # named; nothing is done yet
    COPYING = "copying"  # the target is prepared
    TAILING = "tailing"  # the target has what the source had when the copy ended
    FENCED = "fenced"  # the fence's epoch is given out; the source refuses writes, or is about to
    VERIFIED = "verified"  # the source is fenced and both are equal; the target is open, or is about to be
    COMMITTED = "committed"  # the target is open and the map says so; the source keeps its copy for the grace
    CLEANING = "cleaning"  # the source's copy is being removed
    RELEASING = "releasing"  # given up under the fence: the source is being reopened
    ABORTING = "aborting"  # given up: the target's copy is being removed
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED: Final = frozenset({Stage.DONE, Stage.CANCELLED, Stage.FAILED})
"""Stages that a move stays in."""

COMMITTED: Final = frozenset({Stage.COMMITTED, Stage.CLEANING, Stage.DONE})
"""Stages in which the target owns the bucket."""


class RebalanceStatus(StrEnum):
    """What a rebalance is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


class NodeRecord(Struct, frozen=True):
    """A control node: where it listens for other nodes and for clients (`host:port`)."""

    id: int
    raft_address: str
    address: str
    joined_ms: int


class Shard(Struct, frozen=True):
    """A shard. `dsn` is None if its server is ours to make, start and stop. `weight` is its part relative to others."""

    id: ShardId
    dsn: str | None
    weight: float
    status: ShardStatus
    added_ms: int
    since_ms: int  # in this status
    purge: bool = False  # once it is removed, its data directory may go too


class MoveRecord(Struct, frozen=True, array_like=True):
    """A move and how far it is. Times are Unix milliseconds. Encoded without names, for there may be thousands.

    `epoch` is the bucket's epoch in the map while the source owns it. `fence_epoch` is set while the source may be
    fenced; the bucket is then opened, on whichever server, at `fence_epoch + 1`. `may_be_open` says that the target
    was allowed to open and has not been barred since. `then` is where releasing and aborting lead to.
    """

    id: UUID
    rebalance: UUID
    bucket: Bucket
    source: ShardId
    target: ShardId
    users: int
    bytes: int
    stage: Stage
    attempt: int
    epoch: Epoch
    begun_ms: int
    since_ms: int  # in this stage
    fence_epoch: Epoch | None = None
    may_be_open: bool = False
    then: Stage | None = None
    holds: int = 0  # fences that were given up
    not_before_ms: int = 0  # no fence before this time
    held_us: int = 0  # how long writes were held, by the last fence
    reason: str = ""  # why it was given up, cancelled or failed
    hasty: bool = False  # the clean-up does not wait for the grace
    fenced_ms: int = 0  # since when writes may be held, by the last fence

    def as_move(self) -> Move:
        """What the servers are told."""
        return Move(self.id, self.attempt, self.bucket, self.source, self.target, self.epoch)

    @property
    def open_epoch(self) -> Epoch:
        """The epoch at which the bucket opens after the fence, on the target or again on the source."""
        invariant(self.fence_epoch is not None, "an epoch to open at is given out with a fence", move=self.id)
        return Epoch((self.fence_epoch or 0) + 1)


class Rebalance(Struct, frozen=True):
    """A plan being carried out, or the last one that was. `queue` is what has not begun."""

    id: UUID
    status: RebalanceStatus
    plan: PlanSummary
    queue: tuple[PlannedMove, ...]
    started_ms: int
    since_ms: int  # in this status
    committed: int = 0
    cancelled: int = 0
    failed: int = 0
    holds_us: tuple[int, ...] = ()  # how long writes were held, of each committed move
    failed_in_row: int = 0  # since the last commit or resume; after some the rebalance pauses by itself
    users_moved: int = 0  # with the committed moves
    bytes_moved: int = 0
    paused_ms: int = 0  # in all pauses that are over
    failures: tuple[MoveRecord, ...] = ()  # the last moves that failed


class Executor(Struct, frozen=True):
    """Who carries moves out: the takeover's number and token, and the node."""

    number: int
    token: UUID
    node: int
    since_ms: int


class Settings(Struct, frozen=True):
    """What operators may set while it runs. Rates of 0 mean: no limit but the shards' own latency."""

    moves_per_server: int = 2  # under way at a time, on each server, as source or target
    hold_budget_ms: int = 1_500  # how long a fence may hold writes before it is given up
    holds_max: int = 8  # fences given up, then the move fails
    grace_s: int = 60  # how long a source keeps its copy after the commit
    copy_events_per_s: int = 0
    clean_rows_per_s: int = 20_000
    latency_ms: int = 0  # of a shard's writes, above which moves slow down; 0: three times what it was before


class ControlState(Struct, frozen=True):
    """Everything. `map` is None until the deployment is founded. `revision` rises with every change."""

    revision: int = 0
    deployment: UUID | None = None
    map: BucketMap | None = None
    nodes: dict[int, NodeRecord] = {}
    shards: dict[ShardId, Shard] = {}
    settings: Settings = Settings()
    executor: Executor | None = None
    rebalance: Rebalance | None = None
    moves: dict[UUID, MoveRecord] = {}  # those that have not ended, in the order in which they began
    ended: tuple[MoveRecord, ...] = ()  # the last ones that did, oldest first


class _Snapshot(Struct, array_like=True):
    format: int
    state: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_decode_snapshot = msgspec.msgpack.Decoder(_Snapshot).decode
_decode_state = msgspec.msgpack.Decoder(ControlState).decode


def encode_state(state: ControlState) -> bytes:
    """The state as bytes, for snapshots and for other processes."""
    return _encoder.encode((STATE_FORMAT, state))


def decode_state(data: bytes) -> ControlState:
    """The inverse of `encode_state`; ValueError for a format that this release does not know."""
    snapshot = _decode_snapshot(data)
    if snapshot.format != STATE_FORMAT:
        raise ValueError(f"control state of format {snapshot.format}; this release reads format {STATE_FORMAT}")
    return _decode_state(snapshot.state)
