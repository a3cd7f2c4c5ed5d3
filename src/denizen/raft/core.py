"""The Raft core: from what happened to what must be done about it, without I/O, clock, or randomness of its own.

    effects = core.step(events, now)

`events` are messages from other nodes and the inputs of `events.py`; `now` is the caller's monotonic clock in
milliseconds, read after the events arrived. The same inputs give the same effects, bit for bit. What the caller owes
in return:

1.  Calls do not overlap, and the effects of one step are carried out before those of the next wherever an order is
    named below.
2.  Time: step at least every `heartbeat_ms / 4` even if nothing happened (`core.tick(now)`). A caller that was stopped
    passes the clock as it is now; the core then sees that its lease and its leadership may be over.
3.  `effects.write`: carry writes out in the order of their numbers, each whole (`Write` says how), and report
    `Persisted(number)` once it is fsynced. Steps may go on meanwhile; one fsync may serve many writes. If the disk
    fails, stop the node: never retry an fsync, never report what was not proven.
4.  `effects.send`: every message here may leave at once. What depends on durability (votes, acknowledgements) is held
    back by the core until `Persisted`, so there is nothing to wait for. Messages may be lost, delayed, repeated and
    reordered, but only reach the node in `to`, unchanged, and their `sender` is proven by the transport. Bound the
    queues of a peer by dropping, not by waiting.
5.  `effects.restore`, if any, comes first: replace the state machine by this snapshot. Then `effects.apply`: committed
    and locally durable entries in index order without holes. Then `effects.reads`, each answered from a state that has
    applied `ReadReady.index`. Configuration and empty entries are in `apply` too: an index is never skipped.
6.  Answer every key: `accepted`, `refused`, `completed`, `reads`. `Accepted` is a place, not an outcome: see there.
7.  Snapshots: `effects.read_chunks` and `effects.write_chunks` are answered by `ChunkRead` and `ChunkWritten`, soon; a
    lost answer costs an election time-out. After making a durable snapshot of its own at an applied index the caller
    reports `SnapshotMade` with the term and configuration of `core.snapshot_basis(index)`. It keeps the bytes of a
    snapshot while it is newest.
8.  `effects.compact`: the log on the disk may forget everything up to this index. It is given only after
    `SnapshotMade`.
9.  `effects.configuration`: the members changed (effective at once, possibly undone by a later one): connect to whom
    it names.
10. A restart gives `Restored` exactly as the disk holds it. A directory that was lost is a new member with a new id.
    Records that were durable and are not readable are told as `Restored.repair`; the mark is kept until
    `effects.repaired`.
11. `rng` needs no secrecy but must differ between nodes and between restarts of one node; it draws time-outs and the
    first read ticket.
"""

from collections.abc import Iterable
from random import Random

from denizen.raft.effects import Effects
from denizen.raft.events import Event
from denizen.raft.types import Configuration, Index, Millis, NodeId, Restored, Role, Settings, Term


class Core:
    """One node of one Raft group."""

    def __init__(self, settings: Settings, restored: Restored, rng: Random, now: Millis) -> None:
        """A follower as the disk left it. If it is restored with a snapshot, the state machine starts from that one."""

    def step(self, events: Iterable[Event], now: Millis) -> Effects:
        """Take in what happened up to `now` and say what to do. Raises `InvariantBroken`: stop the node then."""
        return Effects()

    def tick(self, now: Millis) -> Effects:
        """A step without events: only time has passed."""
        return self.step((), now)

    def snapshot_basis(self, index: Index) -> tuple[Term, Configuration]:
        """Term and configuration at an applied index, for a `Snapshot` of the state after it."""
        return Term(0), Configuration()

    id: NodeId
    role: Role
    term: Term
    leader: NodeId
    commit: Index
    applied: Index
    """The last index handed over in `apply` or `restore`."""
    first_index: Index
    last_index: Index
    last_term: Term
    configuration: Configuration
    """The newest in the log, committed or not: the one in effect."""
    snapshot: object
