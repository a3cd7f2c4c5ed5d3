"""Rounds: a leader's count of heartbeats, and what their answers prove.

An answer to a round shows that the follower still recognised this leader after the round began. That carries the quorum
check, reads, and leases; an answer to an older round proves nothing about a later moment.
"""

from denizen.raft.progress import Progress
from denizen.raft.quorum import reached
from denizen.raft.state import Leading, State
from denizen.raft.types import NodeId


def start_round(state: State, leading: Leading) -> None:
    """Begin a new round; every append from now on carries it."""
    leading.round += 1
    leading.acked = True
    if state.settings.lease_reads:
        leading.rounds.append((leading.round, state.now))
        while leading.rounds[0][1] < state.now - 4 * state.settings.election_ms:
            leading.rounds.popleft()


def answered(state: State, leading: Leading, progress: Progress, round_: int) -> None:
    """A follower answered in this term, `round_` being the newest it had seen."""
    progress.contact = state.now
    if round_ <= progress.round:
        return
    progress.round = round_
    leading.acked = True
    if leading.rounds:
        progress.lease_from = next((at for number, at in leading.rounds if number >= round_), progress.lease_from)


def has_quorum(state: State, leading: Leading) -> bool:
    """Whether a quorum answered within the longest election time-out. If not, another leader may be elected already."""
    progress, now = leading.progress, state.now

    def contact(node: NodeId) -> int:
        known = progress.get(node)
        return known.contact if known is not None else (now if node == state.id else 0)

    return now - reached(state.configuration, contact) < 2 * state.settings.election_ms
