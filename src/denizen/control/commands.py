"""Everything that can be asked of the control plane's state machine, and what it answers.

Commands are facts or wishes with all that is needed to apply them, times included (`at_ms`, Unix milliseconds: the
machine has no clock). Each is harmless when applied twice. The first group is for operators and agents; the second is
for the executor alone, and carries its number and, for a move, the attempt: what an older executor still says is
refused.
"""

from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen.control.plan import Plan, PlannedMove
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import ShardId

COMMAND_FORMAT: Final = 1


class Command(Struct, frozen=True, tag=True, kw_only=True):
    """Base of all commands; encoded with the name of its class."""

    at_ms: int


# Of operators and agents


class Founded(Command, frozen=True):
    """The deployment exists: its id, the first map, its shards with their DSNs (None: managed). Once. `joining` and
    `removed`: shards that an earlier control plane knew; the ones go on, and no name is used again.
    """

    deployment: UUID
    map: BucketMap
    shards: dict[ShardId, str | None]
    joining: dict[ShardId, str | None] = {}
    removed: dict[ShardId, str | None] = {}


class JoinNode(Command, frozen=True):
    """A control node says where it listens; again after its addresses changed."""

    node: int
    raft_address: str
    address: str


class AddShard(Command, frozen=True):
    """Name a new shard. With `dsn` None its server is made by the agent."""

    shard: ShardId
    dsn: str | None = None
    weight: float = 1.0


class ShardReady(Command, frozen=True):
    """The server of a joining shard runs and is prepared: the map names it, and it may receive buckets."""

    shard: ShardId


class SetWeight(Command, frozen=True):
    """The part of a shard, relative to others; more than 0. It counts in the next plan."""

    shard: ShardId
    weight: float


class DrainShard(Command, frozen=True):
    """The shard is to give everything away, which the next plan does; `purge`: its data may be removed at the end."""

    shard: ShardId
    purge: bool = False


class KeepShard(Command, frozen=True):
    """Take a `DrainShard` back."""

    shard: ShardId


class RemoveShard(Command, frozen=True):
    """A drained shard's server has stopped, or a joining shard is given up: it is no part of the deployment. `lost`:
    the operator's word that the server of a shard that owns nothing is gone for good; moves do not wait for it.
    """

    shard: ShardId
    lost: bool = False


class ChangeSettings(Command, frozen=True):
    """Change the settings that are named; the others stay."""

    moves_per_server: int | None = None
    hold_budget_ms: int | None = None
    holds_max: int | None = None
    grace_s: int | None = None
    copy_events_per_s: int | None = None
    clean_rows_per_s: int | None = None
    latency_ms: int | None = None


class StartRebalance(Command, frozen=True):
    """Carry out this plan. Refused if the map has changed so that it does not fit, or another one is under way."""

    plan: Plan


class PauseRebalance(Command, frozen=True):
    """Begin nothing and stop at the next safe place; a fence is finished first. Nothing is undone."""

    rebalance: UUID


class ResumeRebalance(Command, frozen=True):
    """Go on."""

    rebalance: UUID


class CancelRebalance(Command, frozen=True):
    """Forget the queue and undo the moves that are not committed; committed ones stay."""

    rebalance: UUID


class CancelMove(Command, frozen=True):
    """Undo one move that is not committed."""

    move: UUID


class HastenClean(Command, frozen=True):
    """Remove the source's copy of a committed move now, without waiting for the grace."""

    move: UUID


# Of the executor


class TakeOver(Command, frozen=True):
    """The leader's executor takes all moves up. `token` is drawn anew for each leadership. Raises every attempt."""

    token: UUID
    node: int


class BeginMove(Command, frozen=True):
    """Take a move from the queue."""

    executor: int
    move: UUID
    planned: PlannedMove


class SkipMove(Command, frozen=True):
    """Drop a move from the queue that cannot begin any more."""

    executor: int
    planned: PlannedMove


class StageCommand(Command, frozen=True):
    """Base of what the executor says about one move."""

    move: UUID
    attempt: int


class Prepared(StageCommand, frozen=True):
    """planned → copying: the target is prepared for this move."""

    events: int
    bytes: int


class CopyFinished(StageCommand, frozen=True):
    """copying → tailing: the target has all events that the source had when the copy ended."""


class FenceIntended(StageCommand, frozen=True):
    """tailing → fenced: little is missing; from now on the source may be fenced, at the epoch that this gives out."""


class Verified(StageCommand, frozen=True):
    """fenced → verified: the source is fenced and the target equals it; from now on the target may be opened."""


class Committed(StageCommand, frozen=True):
    """verified → committed, also from releasing if the target was found open: the target is open. The map moves."""

    held_us: int = 0


class GiveUp(StageCommand, frozen=True):
    """The fence took too long, or the move cannot be done: undo. With `fail` the move ends, else it is tried again
    after `not_before_ms`. Raises the attempt.
    """

    reason: str
    fail: bool
    not_before_ms: int = 0


class Reopened(StageCommand, frozen=True):
    """releasing → what `then` says: the target is barred, the source is open again. Raises the attempt."""


class Aborted(StageCommand, frozen=True):
    """aborting → cancelled or failed: nothing of the move is left on the target."""


class CleanStarted(StageCommand, frozen=True):
    """committed → cleaning: the source answers `moved`, and the grace is over."""


class Cleaned(StageCommand, frozen=True):
    """cleaning → done: nothing of the bucket is left on the source."""


AnyCommand = (
    Founded
    | JoinNode
    | AddShard
    | ShardReady
    | SetWeight
    | DrainShard
    | KeepShard
    | RemoveShard
    | ChangeSettings
    | StartRebalance
    | PauseRebalance
    | ResumeRebalance
    | CancelRebalance
    | CancelMove
    | HastenClean
    | TakeOver
    | BeginMove
    | SkipMove
    | Prepared
    | CopyFinished
    | FenceIntended
    | Verified
    | Committed
    | GiveUp
    | Reopened
    | Aborted
    | CleanStarted
    | Cleaned
)


# Answers


class Accepted(Struct, frozen=True, tag=True):
    """The command is applied, or was before (`changed` is False then). `executor`: the number, for `TakeOver`."""

    revision: int
    changed: bool
    executor: int | None = None


class Refusal(Struct, frozen=True, tag=True):
    """A precondition does not hold; nothing changed. `code` is stable, `detail` a sentence for people."""

    code: str
    detail: str


Reply = Accepted | Refusal


class _Envelope(Struct, array_like=True):
    format: int
    command: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_command: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
_decode_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode_command(command: Command) -> bytes:
    """The command as bytes, as it stands in the log."""
    return _encode((COMMAND_FORMAT, command))


def decode_command(data: bytes) -> AnyCommand:
    """The inverse; ValueError for a format that this release does not know."""
    envelope = _decode_envelope(data)
    if envelope.format != COMMAND_FORMAT:
        raise ValueError(f"control command of format {envelope.format}; this release reads format {COMMAND_FORMAT}")
    return _decode_command.decode(envelope.command)


def encode_reply(reply: Reply) -> bytes:
    """The answer as bytes: what the state machine returns."""
    return _encode(reply)


def decode_reply(data: bytes) -> Reply:
    """The inverse."""
    return _decode_reply.decode(data)
