"""Becoming a follower again, from any role; and what is told about roles.

A newer term always comes first: whoever sees one forgets its own role. Stepping down inside a term keeps the vote.
"""

from denizen.raft.effects import Leadership, Refusal, Refused
from denizen.raft.state import Following, Leading, State
from denizen.raft.types import NO_NODE, Millis, NodeId, Role, Term


def become_follower(state: State, term: Term, leader: NodeId) -> None:
    """Follow `leader` (`NO_NODE`: whoever is elected) in `term`, which is this one or a newer one."""
    newer = term > state.term
    if state.leading is not None:
        _give_up(state, state.leading, completed=newer)
        state.contact = state.now
    if newer:
        state.set_hard_state(term, NO_NODE)
    if newer or state.role is not Role.FOLLOWER:
        state.following = Following(state.commit)
        draw_timeout(state)
    state.role = Role.FOLLOWER
    state.leader = leader
    state.votes = {}


def draw_timeout(state: State) -> None:
    """Draw a new election time-out, so that two nodes seldom campaign at once (paper, section 5.2)."""
    shortest = state.settings.election_ms
    state.election_timeout = shortest + state.rng.randrange(shortest)
    state.wake_at = min(state.wake_at, Millis(state.contact + state.election_timeout))


def refuse(state: State, key: int, reason: Refusal) -> None:
    """Tell the caller that request `key` is not carried out."""
    state.effects.refused.append(Refused(key, reason, state.leader))


def tell_leadership(state: State) -> None:
    """Tell the caller role, term and leader if one of them changed."""
    told = state.told_leadership
    if told.role is not state.role or told.term != state.term or told.leader != state.leader:
        state.told_leadership = state.effects.leadership = Leadership(state.role, state.term, state.leader)


def tell_configuration(state: State) -> None:
    """Tell the caller the configuration in effect if it changed."""
    if state.told_configuration is not state.configurations.current:
        state.told_configuration = state.effects.configuration = state.configurations.current


def _give_up(state: State, leading: Leading, *, completed: bool) -> None:
    """End a leadership: whoever waits for it hears so."""
    state.leading, state.leader = None, NO_NODE
    if leading.transfer_key is not None:
        if completed:
            state.effects.completed.append(leading.transfer_key)
        else:
            refuse(state, leading.transfer_key, Refusal.LEADERSHIP_LOST)
    if leading.change_key is not None:
        refuse(state, leading.change_key, Refusal.LEADERSHIP_LOST)
    for group in (leading.reads_waiting, *(reads for _, _, reads in leading.read_rounds)):
        for asker, key in group:
            if asker == state.id:
                refuse(state, key, Refusal.LEADERSHIP_LOST)
