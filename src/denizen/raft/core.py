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

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from denizen.raft import election, following, leadership, membership, reads, replication, snapshotting, transfer
from denizen.raft.durability import flush_write, hand_over, persisted
from denizen.raft.effects import Effects
from denizen.raft.events import (
    Change,
    ChunkRead,
    ChunkWritten,
    Event,
    Persisted,
    Propose,
    Read,
    SnapshotMade,
    Transfer,
    Unreachable,
)
from denizen.raft.messages import (
    Append,
    AppendReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from denizen.raft.roles import become_follower, draw_timeout, tell_configuration, tell_leadership
from denizen.raft.state import State
from denizen.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    Index,
    Millis,
    NodeId,
    Restored,
    Role,
    Settings,
    Snapshot,
    Term,
)


class Core:
    """One node of one Raft group."""

    __slots__ = ("_handlers", "_state")

    def __init__(self, settings: Settings, restored: Restored, rng: Random, now: Millis) -> None:
        """A follower as the disk left it. If it is restored with a snapshot, the state machine starts from that one."""
        if settings.lease_reads and not settings.check_quorum:
            raise ValueError("lease_reads needs check_quorum: without it nobody promises to wait for the leader")
        self._state = State(settings, restored, rng, now)
        draw_timeout(self._state)
        self._handlers = _HANDLERS

    def step(self, events: Iterable[Event], now: Millis) -> Effects:
        """Take in what happened up to `now` and say what to do. Raises `InvariantBroken`: stop the node then."""
        state = self._state
        state.effects = effects = Effects()
        state.now = max(state.now, now)
        if state.now >= state.wake_at:
            _on_time(state)
        handlers = self._handlers
        for event in events:
            handlers[type(event)](state, event)
        _flush(state)
        return effects

    def tick(self, now: Millis) -> Effects:
        """A step without events: only time has passed."""
        return self.step((), now)

    def snapshot_basis(self, index: Index) -> tuple[Term, Configuration]:
        """Term and configuration at an applied index, for a `Snapshot` of the state after it."""
        term = self._state.log.term(index)
        if term is None or index > self._state.applied:
            raise ValueError(f"{index} is not applied, or compacted")
        return term, self._state.configurations.at(index)

    def entry_at(self, index: Index) -> Entry | None:
        """An entry of the log, committed or not; None where there is none (any more)."""
        log = self._state.log
        return log.entry(index) if log.base_index < index <= log.last_index else None

    def term_at(self, index: Index) -> Term | None:
        """The term of an entry, or of the place right before the first one kept."""
        return self._state.log.term(index)

    @property
    def wake_at(self) -> Millis:
        """When time alone will have an effect, if nothing happens before: a tick earlier than this does nothing."""
        return self._state.wake_at

    @property
    def id(self) -> NodeId:
        """This node."""
        return self._state.id

    @property
    def role(self) -> Role:
        """What it is."""
        return self._state.role

    @property
    def term(self) -> Term:
        """The newest term it knows."""
        return self._state.term

    @property
    def leader(self) -> NodeId:
        """The leader of this term, if known."""
        return self._state.leader

    @property
    def commit(self) -> Index:
        """Everything up to here is committed."""
        return self._state.commit

    @property
    def applied(self) -> Index:
        """The last index handed over in `apply` or `restore`."""
        return self._state.applied

    @property
    def first_index(self) -> Index:
        """The first entry that is kept."""
        return Index(self._state.log.base_index + 1)

    @property
    def last_index(self) -> Index:
        """The last entry."""
        return self._state.log.last_index

    @property
    def persisted(self) -> Index:
        """The last entry that is durable here."""
        return self._state.log.persisted

    @property
    def configuration(self) -> Configuration:
        """The members as the newest configuration in the log has them, committed or not."""
        return self._state.configuration

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot, own or received."""
        return self._state.snapshot

    @property
    def damaged(self) -> bool:
        """Whether it may not vote because its disk lost something."""
        return self._state.repair is not None

    @property
    def matches(self) -> dict[NodeId, Index]:
        """Of a leader: how far each other member is known to agree. Empty otherwise."""
        leading = self._state.leading
        return {node: progress.match for node, progress in leading.progress.items()} if leading is not None else {}


def _on_time(state: State) -> None:
    """Some deadline is due."""
    state.wake_at = Millis(state.now + 4 * state.settings.election_ms)
    if state.leading is not None:
        leadership.on_time(state, state.leading)
    elif state.now >= state.contact + state.election_timeout:
        election.timed_out(state)
    if state.leading is None:
        state.wake_at = min(state.wake_at, Millis(state.contact + state.election_timeout))
    reads.expire(state)


def _flush(state: State) -> None:
    """The end of every step: what follows from all its events together."""
    if state.leading is not None:
        leadership.flush(state, state.leading)
    if state.role is Role.FOLLOWER and state.leader != NO_NODE:
        following.flush(state)
    reads.ask_leader(state)
    tell_leadership(state)
    tell_configuration(state)
    flush_write(state)
    hand_over(state)


def _persisted(state: State, event: Persisted) -> None:
    persisted(state, event.number)
    if state.role is Role.CANDIDATE:
        election.count_own_vote(state)


def _in_this_term(handler: Callable[[State, Any], None]) -> Callable[[State, Any], None]:
    """Wrap the handler of a message: compare the terms first (paper, section 5.1)."""

    def handle(state: State, message: Any) -> None:
        if message.term != state.term and not _meet(state, message):
            return
        if message.to == state.id:
            handler(state, message)

    return handle


def _meet(state: State, message: Message) -> bool:
    """Deal with a message of another term. Returns whether it is still to be handled."""
    if message.to != state.id:
        return False
    kind = type(message)
    if kind is PreVote or kind is ReadIndexReply:
        return True
    if message.term < state.term:
        _answer_older(state, message)
        return False
    if isinstance(message, PreVoteReply) and message.granted:
        return True
    if isinstance(message, Vote) and not message.transfer and election.promised(state):
        return False  # a live leader may rely on us; the candidate must wait
    leads = kind is Append or kind is InstallSnapshot
    become_follower(state, message.term, message.sender if leads else NO_NODE)
    return True


def _answer_older(state: State, message: Message) -> None:
    """Who speaks in an older term is told the newer one, if it leads or wants to: else it would never learn."""
    if isinstance(message, Append | InstallSnapshot):
        state.send(AppendReply(message.sender, state.id, state.term, 0, Index(0)))
    elif isinstance(message, Vote):
        state.send(VoteReply(message.sender, state.id, state.term, granted=False))


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Append: _in_this_term(following.on_append),
    AppendReply: _in_this_term(replication.on_append_reply),
    Persisted: _persisted,
    Propose: leadership.propose,
    Read: reads.request,
    ReadIndex: _in_this_term(reads.on_read_index),
    ReadIndexReply: _in_this_term(reads.on_read_index_reply),
    PreVote: _in_this_term(election.on_pre_vote),
    PreVoteReply: _in_this_term(election.on_pre_vote_reply),
    Vote: _in_this_term(election.on_vote),
    VoteReply: _in_this_term(election.on_vote_reply),
    TimeoutNow: _in_this_term(election.on_timeout_now),
    InstallSnapshot: _in_this_term(snapshotting.on_install),
    InstallSnapshotReply: _in_this_term(snapshotting.on_install_reply),
    Change: membership.change,
    Transfer: transfer.request,
    SnapshotMade: snapshotting.made,
    ChunkRead: snapshotting.chunk_read,
    ChunkWritten: snapshotting.chunk_written,
    Unreachable: lambda state, event: leadership.unreachable(state, event.node),
}
