"""Known bugs, to be put back into the core for a while: they check the checkers.

Each is a mistake that real implementations made. A simulation that does not find one within the stated number of seeds
would not find a new one of its kind either.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from unittest.mock import patch

from msgspec import Struct

from denizen.raft import core, durability, following, leadership, membership, reads
from denizen.raft.configuration import ConfigurationHistory
from denizen.raft.quorum import reached
from denizen.raft.state import Leading, State
from denizen.raft.types import NO_NODE, Entry, HardState, Index, NodeId


class Bug(Struct, frozen=True):
    """A known bug: what is wrong, within how many seeds of which profile it has to be found, and how to put it back."""

    name: str
    what: str
    profile: str
    seeds_max: int
    put_back: Callable[[], AbstractContextManager[None]]


@contextmanager
def _vote_not_persisted() -> Iterator[None]:
    def without_vote(state: State) -> HardState:
        return HardState(state.term, NO_NODE)

    with patch.object(State, "hard_state", property(without_vote)):
        yield


@contextmanager
def _old_term_committed_by_counting() -> Iterator[None]:
    def advance_commit(state: State, leading: Leading) -> None:
        def match(node: NodeId) -> int:
            known = leading.progress.get(node)
            return known.match if known is not None else (state.log.persisted if node == state.id else 0)

        state.commit = max(state.commit, Index(reached(state.configuration, match)))
        membership.committed(state, leading)

    with patch.object(leadership, "advance_commit", advance_commit):
        yield


@contextmanager
def _matching_suffix_truncated() -> Iterator[None]:
    def store(state: State, entries: list[Entry], last: Index) -> None:
        first = entries[0].index
        if first <= state.log.last_index:
            state.log.truncate(first)
            state.configurations.truncated(first)
            durability.clip(state, Index(first - 1))
        state.append(entries)

    with patch.object(following, "_store", store):
        yield


@contextmanager
def _read_confirmed_by_old_heartbeat() -> Iterator[None]:
    def round_of(state: State, leading: Leading, node: NodeId) -> int:
        progress = leading.progress.get(node)
        if progress is not None:
            return leading.round if progress.round > 0 else 0
        return leading.round if node == state.id else 0

    with patch.object(reads, "round_of", round_of):
        yield


@contextmanager
def _configuration_applied_too_late() -> Iterator[None]:
    take_in = ConfigurationHistory.appended
    hand_over = durability.hand_over

    def not_yet(history: ConfigurationHistory, entries: Sequence[Entry]) -> None:
        """Appended is not in effect."""

    def hand_over_and_take_in(state: State) -> None:
        hand_over(state)
        take_in(state.configurations, state.effects.apply)

    with ExitStack() as stack:
        stack.enter_context(patch.object(ConfigurationHistory, "appended", not_yet))
        stack.enter_context(patch.object(core, "hand_over", hand_over_and_take_in))
        yield


BUGS = {
    bug.name: bug
    for bug in (
        Bug("vote-not-persisted", "a node forgets its vote when it restarts", "stormy", 200, _vote_not_persisted),
        Bug(
            "old-term-by-counting",
            "a leader commits entries of older terms by counting copies (paper, figure 8)",
            "falling",
            100,
            _old_term_committed_by_counting,
        ),
        Bug(
            "matching-suffix-truncated",
            "a late append cuts off entries that agree with the leader's",
            "drawn",
            100,
            _matching_suffix_truncated,
        ),
        Bug(
            "read-by-old-heartbeat",
            "answers to heartbeats before the read confirm it",
            "drawn",
            300,
            _read_confirmed_by_old_heartbeat,
        ),
        Bug(
            "configuration-too-late",
            "a configuration is in effect when it is applied, not when it is appended",
            "changing",
            100,
            _configuration_applied_too_late,
        ),
    )
}
