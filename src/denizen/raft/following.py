"""The follower's side of replication: what fits is stored, what is stored and durable is acknowledged (paper, section
5.3).

An append that fits never shortens the log unless an entry in it really differs, so late and repeated ones do no harm.
The commit index is followed only as far as the log is known to agree with this leader's.
"""

from denizen.raft.durability import truncate
from denizen.raft.invariants import invariant
from denizen.raft.messages import Append, AppendReply, InstallSnapshot
from denizen.raft.roles import become_follower
from denizen.raft.state import State
from denizen.raft.types import Entry, Index, Millis, Role


def heard_leader(state: State, message: Append | InstallSnapshot) -> None:
    """The leader of this term spoke: follow it, and wait a whole time-out again."""
    if state.leader != message.sender or state.role is not Role.FOLLOWER:
        invariant(state.leading is None, "one leader a term", term=state.term, other=message.sender)
        become_follower(state, state.term, message.sender)
    state.contact = state.now
    state.promised_until = Millis(state.now + state.settings.election_ms)
    following = state.following
    if message.round > following.round:
        following.round = message.round
        following.ack_due = True


def on_append(state: State, message: Append) -> None:
    """Entries, or a heartbeat, from the leader of this term."""
    heard_leader(state, message)
    previous, entries, log = message.prev_index, message.entries, state.log
    if entries and (entries[0].index != previous + 1 or entries[-1].index != previous + len(entries)):
        return  # no leader sends this
    if previous < log.base_index:  # committed here long ago, so agreed
        entries = entries[log.base_index - previous :]
        previous = log.base_index if entries else Index(min(previous + len(message.entries), log.base_index))
    elif log.term(previous) != message.prev_term:
        _refuse(state, previous)
        return
    last = Index(previous + len(entries))
    if entries:
        _store(state, entries, last)
    following = state.following
    following.verified = max(following.verified, last)
    state.commit = max(state.commit, min(message.commit, following.verified))


def _store(state: State, entries: list[Entry], last: Index) -> None:
    """Append what is new of `entries`, which follow an entry that agrees."""
    log = state.log
    if entries[0].index <= log.last_index:
        overlap = min(log.last_index, last) - entries[0].index + 1
        fresh = overlap
        if log.term(entries[overlap - 1].index) != entries[overlap - 1].term:  # else all before it agree too
            fresh = next(at for at, entry in enumerate(entries) if log.term(entry.index) != entry.term)
        entries = entries[fresh:]
        if not entries:
            state.following.ack_due = True
            return
        if entries[0].index <= log.last_index:
            invariant(entries[0].index > state.following.verified, "a leader only appends", at=entries[0].index)
            truncate(state, entries[0].index)
    state.append(entries)


def _refuse(state: State, previous: Index) -> None:
    """The append does not fit: describe the own log, so that the leader finds the agreement in one step."""
    following, log = state.following, state.log
    following.ack_due = False
    match = min(following.verified, log.persisted)
    state.send(
        AppendReply(
            to=state.leader,
            sender=state.id,
            term=state.term,
            round=following.round,
            match=match,
            conflict=previous,
            runs=log.runs(),
            repairing=state.repair is not None,
        )
    )


def flush(state: State) -> None:
    """The end of a follower's step: acknowledge what became durable, and the leader's newest round."""
    following = state.following
    match = min(following.verified, state.log.persisted)
    if match <= following.acked_match and not following.ack_due:
        return
    following.ack_due = False
    following.acked_match = match
    repairing = state.repair is not None
    if state.repair is not None and state.repair.until is not None and match >= state.repair.until:
        state.repair = None
        state.effects.repaired = True
    state.send(AppendReply(state.leader, state.id, state.term, following.round, match, Index(0), (), repairing))
