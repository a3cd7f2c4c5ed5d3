"""Everything that can happen to a node, given to `Core.step`, together with the messages of `messages.py` and the
passing time.

`key` is a number chosen by the caller, unique among what it has waiting; it comes back in exactly one of
`Effects.accepted`, `Effects.refused`, `Effects.reads` or `Effects.completed` (changes and transfers: `accepted` first
where noted).
"""

from msgspec import Struct

from denizen.raft.messages import Message
from denizen.raft.types import NodeId, Snapshot


class Propose(Struct, frozen=True, gc=False):
    """Append these commands as one batch: all of them or none. Answered by `Accepted` or `Refused`.

    Batch what arrived since the last step: the cost of a step is by the batch, not by the command.
    """

    key: int
    commands: list[bytes]


class Read(Struct, frozen=True, gc=False):
    """Wants to read linearizably. Answered by `ReadReady` or `Refused`; a follower asks the leader."""

    key: int


class Change(Struct, frozen=True):
    """Change the membership. Answered by `Accepted` (appended) and later `Completed` (in force and committed), or
    `Refused`.

    `add_learners`: new members that receive the log. `add_voters`: members that are to vote; one that is not a learner
    yet, or has not caught up, becomes a learner first and is made a voter by the leader once it has caught up
    (`Completed` says that the first step is done; the promotion shows in `Effects.configuration`). `demote`: voters
    that become learners. `remove`: leave.
    """

    key: int
    add_voters: tuple[NodeId, ...] = ()
    add_learners: tuple[NodeId, ...] = ()
    demote: tuple[NodeId, ...] = ()
    remove: tuple[NodeId, ...] = ()


class Transfer(Struct, frozen=True):
    """Hand the leadership to `to`. Answered by `Completed` when a newer term is seen, or `Refused` (also after a
    time-out).
    """

    key: int
    to: NodeId


class Persisted(Struct, frozen=True, gc=False):
    """Every `Write` with a number up to and including this one is durable (written and fsynced)."""

    number: int


class SnapshotMade(Struct, frozen=True):
    """The caller made a durable snapshot of its own state machine; `snapshot` begins with what `Core.snapshot_basis`
    said.
    """

    snapshot: Snapshot


class ChunkRead(Struct, frozen=True):
    """The bytes asked for by `ReadChunk`; `data` None when that snapshot is gone (a newer one replaced it)."""

    to: NodeId
    snapshot: Snapshot
    offset: int
    data: bytes | None
    last: bool = False


class ChunkWritten(Struct, frozen=True):
    """What `WriteChunk` led to: `stored` bytes of this snapshot are staged.

    `complete`: the last byte is there, the digest is right and the staged file is durable (fsynced, directory too).
    If the digest is wrong, throw the staged bytes away and report `stored` 0.
    """

    sender: NodeId
    snapshot: Snapshot
    stored: int
    complete: bool


class Unreachable(Struct, frozen=True):
    """The connection to this peer broke: what was in flight is probably lost. Optional; it only saves a heartbeat's
    time.
    """

    node: NodeId


Input = Propose | Read | Change | Transfer | Persisted | SnapshotMade | ChunkRead | ChunkWritten | Unreachable
Event = Message | Input
