"""Changing the members by joint consensus (paper, section 6), one change at a time.

A change is refused until the leader has committed an entry of its own term: before that, a configuration of an earlier
leader could still win, and two that differ by one member each could decide apart from one another. A joint
configuration that is committed is left by itself; a leader that is no voter afterwards hands over and steps down.
"""

from denizen.raft import replication
from denizen.raft.configuration import InvalidChange, encode_configuration, plan, promote
from denizen.raft.effects import Accepted, Refusal
from denizen.raft.events import Change
from denizen.raft.messages import TimeoutNow
from denizen.raft.progress import Mode, Progress
from denizen.raft.roles import become_follower, refuse
from denizen.raft.state import Leading, State
from denizen.raft.types import NO_NODE, Configuration, Entry, EntryKind, Index, NodeId


def change(state: State, event: Change) -> None:
    """Begin a membership change, or refuse it."""
    leading = state.leading
    if leading is None:
        refuse(state, event.key, Refusal.NOT_LEADER)
    elif leading.transfer_to != NO_NODE:
        refuse(state, event.key, Refusal.TRANSFERRING)
    elif state.commit < leading.term_start:
        refuse(state, event.key, Refusal.TERM_NOT_COMMITTED)
    elif not settled(state):
        refuse(state, event.key, Refusal.CHANGE_PENDING)
    else:
        try:
            planned = plan(state.configuration, event, lambda node: caught_up(state, leading, node))
        except InvalidChange:
            refuse(state, event.key, Refusal.INVALID_CHANGE)
            return
        index = append(state, leading, planned)
        leading.change_key = event.key
        state.effects.accepted.append(Accepted(event.key, index, 1, state.term))


def settled(state: State) -> bool:
    """Whether the configuration in effect is committed and simple, so that the next change may begin."""
    return state.configurations.current_index <= state.commit and not state.configuration.joint


def append(state: State, leading: Leading, configuration: Configuration) -> Index:
    """Append a configuration; it is in effect at once."""
    index = Index(state.log.last_index + 1)
    state.append([Entry(index, state.term, EntryKind.CONFIGURATION, encode_configuration(configuration))])
    refresh_progress(state, leading, Index(index + 1))
    return index


def refresh_progress(state: State, leading: Leading, following: Index) -> None:
    """Follow every member. One that is leaving is still served until its removal is committed, so that it hears of
    it.
    """
    for node in state.configuration.members:
        if node != state.id and node not in leading.progress:
            leading.progress[node] = Progress(node, following, state.now)
    leading.acked = True


def committed(state: State, leading: Leading) -> None:
    """The commit index moved: go on with a change whose configuration it has passed."""
    if state.configurations.current_index > state.commit or state.commit < leading.term_start:
        return
    configuration = state.configuration
    if configuration.joint:
        append(state, leading, Configuration(configuration.voters, (), configuration.learners, configuration.joining))
        return
    if leading.change_key is not None:
        state.effects.completed.append(leading.change_key)
        leading.change_key = None
    _let_go(state, leading, configuration)
    if state.id not in configuration.voters:
        _step_down(state, leading, configuration)


def _let_go(state: State, leading: Leading, configuration: Configuration) -> None:
    """Tell those who left that it is committed, and forget them."""
    members = configuration.members
    for node in [node for node in leading.progress if node not in members]:
        progress = leading.progress.pop(node)
        if progress.mode is Mode.REPLICATE:
            replication.send_empty(state, leading, progress)


def _step_down(state: State, leading: Leading, configuration: Configuration) -> None:
    """The leader removed itself: whoever is furthest takes over at once, and need not wait for a time-out."""
    replication.replicate(state, leading)
    replication.tell_commit(state, leading)
    furthest = max(configuration.voters, key=lambda node: (leading.progress[node].match, -node))
    state.send(TimeoutNow(furthest, state.id, state.term))
    become_follower(state, state.term, NO_NODE)


def caught_up(state: State, leading: Leading, node: NodeId) -> bool:
    """Whether a learner's log is close enough to the leader's to vote without holding up commits."""
    progress = leading.progress.get(node)
    return (
        progress is not None
        and progress.mode is Mode.REPLICATE
        and progress.match + state.settings.promotion_lag_entries >= state.log.last_index
        and state.now - progress.contact < state.settings.election_ms
    )


def promote_joining(state: State, leading: Leading) -> None:
    """Make voters of the joining learners that caught up, when no other change is under way."""
    joining = state.configuration.joining
    if not joining or leading.transfer_to != NO_NODE or state.commit < leading.term_start or not settled(state):
        return
    ready = [node for node in joining if caught_up(state, leading, node)]
    if ready:
        append(state, leading, promote(state.configuration, ready))
