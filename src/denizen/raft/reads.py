"""Linearizable reads without writing to the log (thesis, section 6.4).

A read notes the commit index, then waits until a quorum has answered a round that began after the read arrived: so at
that moment no newer leader could have committed anything. Reads that come while a round is under way share the next
one. With lease reads on, a quorum's promise not to help another candidate stands in for the round, as long as it
lasts. A leader that has not committed an entry of its own term yet does not know the commit index and lets reads wait.
A follower asks the leader for the index.
"""

from denizen.raft import replication
from denizen.raft.effects import Refusal
from denizen.raft.events import Read
from denizen.raft.messages import ReadIndex, ReadIndexReply
from denizen.raft.quorum import reached
from denizen.raft.roles import refuse
from denizen.raft.rounds import start_round
from denizen.raft.state import Leading, State
from denizen.raft.types import NO_NODE, Index, Millis, NodeId


def request(state: State, event: Read) -> None:
    """Somebody wants to read at this node."""
    leading = state.leading
    if leading is None:
        if state.leader == NO_NODE:
            refuse(state, event.key, Refusal.NOT_LEADER)
        elif len(state.reads_unsent) >= state.settings.reads_waiting_max:
            refuse(state, event.key, Refusal.BUSY)
        else:
            state.reads_unsent.append(event.key)
    elif len(leading.reads_waiting) >= state.settings.reads_waiting_max:
        refuse(state, event.key, Refusal.BUSY)
    else:
        leading.reads_waiting.append((state.id, event.key))


def on_read_index(state: State, message: ReadIndex) -> None:
    """A follower asks."""
    leading = state.leading
    if leading is None or len(leading.reads_waiting) >= state.settings.reads_waiting_max:
        state.send(ReadIndexReply(message.sender, state.id, state.term, message.ticket, Index(0), refused=True))
    else:
        leading.reads_waiting.append((message.sender, message.ticket))


def advance(state: State, leading: Leading) -> None:
    """Answer what is confirmed by now, and begin a round for what is not covered yet."""
    if not leading.reads_waiting and not leading.read_rounds:
        return
    if leading.read_rounds and leading.acked:
        confirm(state, leading)
    leading.acked = False
    if not leading.reads_waiting or state.commit < leading.term_start:
        return
    if lease_holds(state, leading):
        _answer(state, leading, state.commit, leading.reads_waiting)
        leading.reads_waiting = []
    elif not leading.read_rounds:
        start_round(state, leading)
        leading.read_rounds.append((leading.round, state.commit, leading.reads_waiting))
        leading.reads_waiting = []
        replication.tell_round(state, leading)
        confirm(state, leading)  # a single voter is its own quorum


def confirm(state: State, leading: Leading) -> None:
    """Answer the reads whose round a quorum has answered."""
    confirmed = reached(state.configuration, lambda node: round_of(state, leading, node))
    while leading.read_rounds and leading.read_rounds[0][0] <= confirmed:
        _, index, waiting = leading.read_rounds.popleft()
        _answer(state, leading, index, waiting)


def round_of(state: State, leading: Leading, node: NodeId) -> int:
    """The newest round of this term that a member has answered; the leader itself has answered all."""
    progress = leading.progress.get(node)
    if progress is not None:
        return progress.round
    return leading.round if node == state.id else 0


def lease_holds(state: State, leading: Leading) -> bool:
    """Whether a quorum still promises not to help another candidate."""
    settings = state.settings
    if not settings.lease_reads or leading.lease_broken:
        return False

    def since(node: NodeId) -> int:
        progress = leading.progress.get(node)
        return progress.lease_from if progress is not None else (state.now if node == state.id else -(1 << 62))

    return state.now < reached(state.configuration, since) + settings.election_ms - settings.lease_margin_ms


def _answer(state: State, leading: Leading, index: Index, waiting: list[tuple[NodeId, int]]) -> None:
    for asker, key in waiting:
        if asker == state.id:
            state.reads_confirmed.append((index, key))
            continue
        progress = leading.progress.get(asker)
        if progress is not None and progress.told_commit < index:
            replication.send_empty(state, leading, progress)
        state.send(ReadIndexReply(asker, state.id, state.term, key, index))


def ask_leader(state: State) -> None:
    """At the end of a follower's step: one question to the leader for all reads that came in it."""
    if not state.reads_unsent:
        return
    keys, state.reads_unsent = state.reads_unsent, []
    if state.leader == NO_NODE or state.leading is not None:
        for key in keys:
            refuse(state, key, Refusal.NOT_LEADER)
        return
    state.ticket += 1
    state.reads_asked[state.ticket] = (Millis(state.now + 2 * state.settings.election_ms), keys)
    state.wake_at = min(state.wake_at, Millis(state.now + 2 * state.settings.election_ms))
    state.send(ReadIndex(state.leader, state.id, state.term, state.ticket))


def on_read_index_reply(state: State, message: ReadIndexReply) -> None:
    """The leader answers; the index stays right whatever has happened to the leadership since."""
    asked = state.reads_asked.pop(message.ticket, None)
    if asked is None:
        return
    for key in asked[1]:
        if message.refused:
            refuse(state, key, Refusal.NOT_LEADER)
        else:
            state.reads_confirmed.append((message.index, key))


def expire(state: State) -> None:
    """Give up questions the leader did not answer in time, and say when the next one ends."""
    late = [ticket for ticket, (deadline, _) in state.reads_asked.items() if deadline <= state.now]
    for ticket in late:
        for key in state.reads_asked.pop(ticket)[1]:
            refuse(state, key, Refusal.TIMED_OUT)
    if state.reads_asked:
        first = next(iter(state.reads_asked.values()))  # asked first, so due first
        state.wake_at = min(state.wake_at, first[0])
