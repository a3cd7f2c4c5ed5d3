"""The leader's side of replication: what to send to whom, and what the answers mean (paper, section 5.3).

Appends leave before the leader's own disk is done (thesis, section 10.2.1); its log counts for a quorum only once it
is. A lost message is noticed at the next heartbeat, which is an empty append right after the last one sent: it does
not fit then.
"""

from denizen.raft import snapshotting
from denizen.raft.messages import Append, AppendReply
from denizen.raft.progress import Mode, Progress
from denizen.raft.rounds import answered
from denizen.raft.state import Leading, State
from denizen.raft.types import Entry, Index, Term


def replicate(state: State, leading: Leading) -> None:
    """Send every follower what it lacks, as far as its window allows."""
    settings, log = state.settings, state.log
    for progress in leading.progress.values():
        if progress.mode is Mode.REPLICATE:
            while (
                progress.next <= log.last_index
                and len(progress.inflight) < settings.inflight_messages_max
                and progress.inflight_bytes < settings.inflight_bytes_max
                and send_entries(state, leading, progress)
            ):
                pass
        elif progress.mode is Mode.PROBE and not progress.probed:
            send_entries(state, leading, progress)


def send_entries(state: State, leading: Leading, progress: Progress) -> bool:
    """Send the next entries; or begin a snapshot if they are compacted (then False)."""
    log, settings = state.log, state.settings
    if progress.next <= log.base_index:
        snapshotting.begin(state, progress)
        return False
    entries: list[Entry] = []
    size = 0
    if progress.next <= log.last_index:
        entries, size = log.batch(progress.next, settings.append_entries_max, settings.append_bytes_max)
    _send(state, leading, progress, entries)
    progress.sent(Index(progress.next - 1 + len(entries)), size)
    return True


def send_empty(state: State, leading: Leading, progress: Progress) -> None:
    """Send an append without entries, right after the last one sent."""
    _send(state, leading, progress, [])


def _send(state: State, leading: Leading, progress: Progress, entries: list[Entry]) -> None:
    """Send an append that follows what was sent before; one that always fits to whoever gets a snapshot."""
    previous = Index(progress.next - 1) if progress.mode is not Mode.SNAPSHOT else Index(0)
    term = state.log.term(previous)
    if term is None:
        previous, term = Index(0), Term(0)
    progress.told_commit, progress.told_round = state.commit, leading.round
    state.send(Append(progress.node, state.id, state.term, leading.round, state.commit, previous, term, entries))


def heartbeat(state: State, leading: Leading) -> None:
    """Speak to everyone in a new round; probe again where an answer is missing."""
    for progress in leading.progress.values():
        if progress.mode is Mode.REPLICATE and progress.next <= state.log.base_index:
            progress.probe(progress.match + 1)  # compacted in flight: a heartbeat could not tell whether it is lost
        if progress.mode is Mode.PROBE:
            progress.probed = False
        elif progress.mode is Mode.SNAPSHOT:
            snapshotting.ask_again(state, progress)
            send_empty(state, leading, progress)
        else:
            send_empty(state, leading, progress)


def tell_round(state: State, leading: Leading) -> None:
    """Send the newest round to whoever was not sent it with entries."""
    for progress in leading.progress.values():
        if progress.told_round < leading.round:
            send_empty(state, leading, progress)


def tell_commit(state: State, leading: Leading) -> None:
    """Send the commit index to whoever was not sent it with entries."""
    for progress in leading.progress.values():
        if progress.told_commit < state.commit and progress.mode is Mode.REPLICATE:
            send_empty(state, leading, progress)


def on_append_reply(state: State, message: AppendReply) -> None:
    """A follower says how far it agrees, or that an append did not fit."""
    leading = state.leading
    progress = leading.progress.get(message.sender) if leading is not None else None
    if leading is None or progress is None:
        return
    answered(state, leading, progress, message.round)
    if message.repairing and message.match < progress.match:
        progress.match = message.match
        progress.probe((message.conflict or message.match) + 1)
    if message.conflict:
        _on_conflict(state, progress, message)
    if message.match > progress.match:
        progress.matched(min(message.match, state.log.last_index))
    elif progress.mode is Mode.PROBE and not message.conflict and message.match >= progress.next - 1:
        progress.replicate()


def _on_conflict(state: State, progress: Progress, message: AppendReply) -> None:
    """Step back to the last common entry. An answer to an append that no longer matters changes nothing."""
    if progress.mode is Mode.SNAPSHOT or message.conflict <= progress.match:
        return
    if progress.mode is Mode.PROBE and message.conflict != progress.next - 1:
        return
    agreed = min(state.log.agreement(message.runs), Index(message.conflict - 1))
    progress.probe(max(agreed, progress.match) + 1)
