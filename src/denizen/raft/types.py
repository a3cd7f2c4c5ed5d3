"""The nouns of Raft: ids, log entries, the hard state, snapshots and the settings of a node.

They are frozen records without behaviour worth speaking of, shared by the core, the write-ahead log, the transport and
the state machines. All of them travel as MessagePack arrays, so a new field goes to the end and has a default.
"""

from enum import IntEnum
from typing import Annotated, NewType

from msgspec import Meta, Struct

from denizen.raft import bounds

NodeId = NewType("NodeId", int)
"""A member's number, from 1. It is never used again for another disk: a wiped node joins under a new id."""

Term = NewType("Term", int)
"""A reign of at most one leader; rises, never falls. 0 is before the first election."""

Index = NewType("Index", int)
"""A place in the log, from 1. 0 is the place before the first entry."""

Millis = NewType("Millis", int)
"""A point on the caller's monotonic clock, or a length of time, in milliseconds."""

NO_NODE = NodeId(0)
"""Nobody: no vote given, no leader known."""

# The same types as they are checked when they come from the network or the disk.
NodeIdField = Annotated[NodeId, Meta(ge=0, le=bounds.number_max)]
TermField = Annotated[Term, Meta(ge=0, le=bounds.number_max)]
IndexField = Annotated[Index, Meta(ge=0, le=bounds.number_max)]
Count = Annotated[int, Meta(ge=0, le=bounds.number_max)]
Members = Annotated[tuple[NodeIdField, ...], Meta(max_length=bounds.members_max)]


class EntryKind(IntEnum):
    """What an entry's data is."""

    COMMAND = 0
    """A command of the state machine, opaque to Raft."""
    NOTHING = 1
    """The entry a new leader begins its term with; no data. A state machine may ignore it, but its index counts."""
    CONFIGURATION = 2
    """A `Configuration` in MessagePack; effective from the moment it is appended."""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One place of the log."""

    index: IndexField
    term: TermField
    kind: EntryKind
    data: Annotated[bytes, Meta(max_length=bounds.entry_bytes_max)] = b""


class HardState(Struct, frozen=True, array_like=True, gc=False):
    """What a node may never forget: the newest term it has seen and whom it voted for in it (`NO_NODE` for nobody).

    The commit index is not part of it: a restarted node learns it again from the leader, and needs it for nothing
    before.
    """

    term: TermField = Term(0)
    vote: NodeIdField = NO_NODE


class Configuration(Struct, frozen=True, array_like=True):
    """The members of the cluster; each tuple sorted and without duplicates.

    While `outgoing` is not empty the configuration is joint: every decision needs a majority of `voters` and a
    majority of `outgoing` (paper, section 6). A learner receives entries and never counts. A node in `outgoing` and
    `learners` votes until the joint configuration is left. `joining` are the learners that the leader makes voters
    once they caught up.
    """

    voters: Members = ()
    outgoing: Members = ()
    learners: Members = ()
    joining: Members = ()

    @property
    def joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def electors(self) -> tuple[NodeId, ...]:
        """Every node whose vote counts in one of the majorities, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing})) if self.outgoing else self.voters

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Every node that receives the log, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))


class Snapshot(Struct, frozen=True, array_like=True):
    """The name and description of a snapshot: the state after `index`, which has `term`; the bytes are the caller's.

    `size` and `digest` (any hash of the bytes; empty if unknown) tell two snapshots of the same index apart, so that a
    transfer is resumed only when it is byte for byte the same file.
    """

    index: IndexField
    term: TermField
    configuration: Configuration
    size: Count = 0
    digest: Annotated[bytes, Meta(max_length=bounds.digest_bytes_max)] = b""


class Repair(Struct, frozen=True):
    """The disk lost records that were durable once. Such a node follows and stores, but does not vote and does not
    campaign.

    `until` is the last index that may have been durable before the damage: once the log agrees with a leader's up to
    there, the node is repaired and votes again. `None` means that the hard state itself may be wrong: the node never
    votes again and must be replaced by a new member. Keep the mark on disk until `Effects.repaired` says it may go.
    """

    until: Index | None


class Restored(Struct, frozen=True):
    """What was on the disk when the node started; of a fresh node: nothing but the configuration it is founded with.

    `configuration` is the founding one, the same on every founder, and used while neither snapshot nor log holds a
    newer one; a node that is to join a running cluster starts with an empty one and waits to be spoken to.
    `entries` are contiguous. Those at or below `snapshot.index` are welcome (a kept tail of the log).
    `base_index` and `base_term` are the place right before the first of them: 0 and 0 while the log was never
    compacted. A log that ends before the snapshot (damage can do that) is begun anew after it: on the disk too, before
    the core starts, as the next entry written is the one after the snapshot.
    """

    hard_state: HardState = HardState()
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] | list[Entry] = ()
    base_index: Index = Index(0)
    base_term: Term = Term(0)
    configuration: Configuration = Configuration()
    repair: Repair | None = None


class Role(IntEnum):
    """What a node is at this moment."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class Settings(Struct, frozen=True):
    """The tunables of one node's core. All members of a cluster should use the same times."""

    id: NodeId
    election_ms: int = 150
    """The shortest time-out; each one is drawn from [election_ms, 2 * election_ms)."""
    heartbeat_ms: int = 40
    """How often a leader begins a round; at most a third of `election_ms`."""
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    """Answer reads from a lease when it holds. Trusts that clocks of different nodes run at the same rate within the
    margin below.
    """
    lease_margin_ms: int = 30
    """A lease ends this much before the earliest moment another leader could be elected."""
    inflight_messages_max: int = 64
    """Unanswered appends per follower."""
    inflight_bytes_max: int = 16 << 20
    append_entries_max: int = 1_024
    append_bytes_max: int = 1 << 20
    uncommitted_entries_max: int = 16_384
    """Beyond this many commands (or bytes) appended and not committed, proposals are refused as `BUSY`."""
    uncommitted_bytes_max: int = 64 << 20
    reads_waiting_max: int = 16_384
    chunk_bytes: int = 256 << 10
    """How much of a snapshot goes into one message."""
    log_kept_entries: int = 4_096
    """How many entries before a snapshot stay in the log, so that a follower a little behind needs no snapshot."""
    log_kept_bytes: int = 32 << 20
    """No more than these many bytes of them, whichever is less."""
    promotion_lag_entries: int = 256
    """A joining learner whose log is at most this far behind becomes a voter."""
