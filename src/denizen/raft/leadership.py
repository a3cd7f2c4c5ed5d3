"""Leading: from the first entry of a term, through proposals and heartbeats, to seeing that the quorum is gone."""

from denizen.raft import bounds, membership, reads, replication, transfer
from denizen.raft.effects import Accepted, Refusal
from denizen.raft.events import Propose
from denizen.raft.progress import Mode
from denizen.raft.quorum import reached
from denizen.raft.roles import become_follower, refuse
from denizen.raft.rounds import has_quorum, start_round
from denizen.raft.state import Leading, State
from denizen.raft.types import NO_NODE, Entry, EntryKind, Index, Millis, NodeId, Role


def begin(state: State) -> None:
    """Won: append an entry of this term, which commits everything before it (paper, section 8), and speak at once."""
    following = Index(state.log.last_index + 1)
    state.role, state.leader, state.votes = Role.LEADER, state.id, {}
    leading = state.leading = Leading(following, state.now)
    membership.refresh_progress(state, leading, following)
    state.append([Entry(following, state.term, EntryKind.NOTHING)])
    start_round(state, leading)
    leading.heartbeat_at = Millis(state.now + state.settings.heartbeat_ms)
    state.wake_at = min(state.wake_at, leading.heartbeat_at)


def propose(state: State, event: Propose) -> None:
    """Append commands, all or none."""
    reason = _objection(state, event)
    if reason is not None:
        refuse(state, event.key, reason)
        return
    first, term, kind = state.log.last_index + 1, state.term, EntryKind.COMMAND
    entries = [Entry(Index(index), term, kind, data) for index, data in enumerate(event.commands, first)]
    state.append(entries)
    state.effects.accepted.append(Accepted(event.key, Index(first), len(entries), term))


def _objection(state: State, event: Propose) -> Refusal | None:
    if state.leading is None:
        return Refusal.NOT_LEADER
    if state.leading.transfer_to != NO_NODE:
        return Refusal.TRANSFERRING
    log, settings = state.log, state.settings
    if len(event.commands) > settings.uncommitted_entries_max:
        return Refusal.TOO_LARGE
    if any(len(command) > bounds.entry_bytes_max for command in event.commands):
        return Refusal.TOO_LARGE
    waiting = log.last_index - state.commit
    if waiting + len(event.commands) > settings.uncommitted_entries_max:
        return Refusal.BUSY
    if waiting and log.bytes_after(state.commit) + sum(map(len, event.commands)) > settings.uncommitted_bytes_max:
        return Refusal.BUSY
    return None


def on_time(state: State, leading: Leading) -> None:
    """Time has passed for a leader: the quorum, the transfer, the heartbeat, the news of commits."""
    now, settings = state.now, state.settings
    if settings.check_quorum and not has_quorum(state, leading):
        become_follower(state, state.term, NO_NODE)
        return
    if now >= leading.transfer_deadline:
        transfer.give_up(state, leading)
    if now >= leading.heartbeat_at:
        leading.heartbeat_at = Millis(now + settings.heartbeat_ms)
        start_round(state, leading)
        replication.heartbeat(state, leading)
        membership.promote_joining(state, leading)
    elif now >= leading.notice_at:
        replication.tell_commit(state, leading)
    leading.notice_at = Millis(1 << 62) if now >= leading.notice_at else leading.notice_at
    state.wake_at = min(leading.heartbeat_at, leading.notice_at, leading.transfer_deadline)


def advance_commit(state: State, leading: Leading) -> None:
    """Commit what a quorum has, if it is of this term: older entries are committed only with it (paper, section
    5.4.2).
    """
    progress = leading.progress

    def match(node: NodeId) -> int:
        known = progress.get(node)
        return known.match if known is not None else (state.log.persisted if node == state.id else 0)

    index = Index(reached(state.configuration, match))
    if index <= state.commit or state.log.term(index) != state.term:
        return
    state.commit = index
    leading.notice_at = min(leading.notice_at, Millis(state.now + state.settings.heartbeat_ms // 4))
    state.wake_at = min(state.wake_at, leading.notice_at)
    membership.committed(state, leading)


def flush(state: State, leading: Leading) -> None:
    """The end of a leader's step: commit, confirm, send."""
    advance_commit(state, leading)
    if state.leading is None:  # committed its own removal
        return
    reads.advance(state, leading)
    transfer.advance(state, leading)
    replication.replicate(state, leading)


def unreachable(state: State, node: NodeId) -> None:
    """What was in flight to this peer is probably lost."""
    progress = state.leading.progress.get(node) if state.leading is not None else None
    if progress is not None and progress.mode is Mode.REPLICATE:
        progress.probe(progress.match + 1)
