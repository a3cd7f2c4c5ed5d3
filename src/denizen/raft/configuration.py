"""Who is a member, at every index of the log; and what a requested change makes of it.

A configuration is in effect from the moment its entry is appended, committed or not, and falls back when the entry is
truncated. So the history keeps every configuration in the log and the newest one at or before its base.
"""

from collections.abc import Callable, Sequence

from msgspec.msgpack import Decoder, Encoder

from denizen.raft import bounds
from denizen.raft.events import Change
from denizen.raft.types import Configuration, Entry, EntryKind, Index, NodeId

encode_configuration = Encoder().encode
decode_configuration = Decoder(Configuration).decode


class InvalidChange(ValueError):
    """The change names wrong members, changes nothing, or would leave no voter."""


class ConfigurationHistory:
    """The configurations of a log, oldest first; the last one is in effect."""

    __slots__ = ("_history", "current", "current_index")

    def __init__(self, index: Index, configuration: Configuration) -> None:
        self.reset(index, configuration)

    def reset(self, index: Index, configuration: Configuration) -> None:
        """Begin anew: this one is in effect from `index`, which a snapshot covers."""
        self._history = [(index, configuration)]
        self._refresh()

    def appended(self, entries: Sequence[Entry]) -> None:
        """Take in the configurations among entries that were appended to the log."""
        found = [entry for entry in entries if entry.kind is EntryKind.CONFIGURATION]
        if found:
            self._history.extend((entry.index, decode_configuration(entry.data)) for entry in found)
            self._refresh()

    def truncated(self, first: int) -> None:
        """Forget those at or after `first`."""
        if self.current_index >= first:
            kept = [item for item in self._history if item[0] < first]
            self._history = kept or self._history[:1]
            self._refresh()

    def compacted(self, index: Index) -> None:
        """Forget those which `index` and everything after it do not need."""
        older = sum(1 for at, _ in self._history if at <= index)
        del self._history[: max(older - 1, 0)]

    @property
    def previous(self) -> Configuration:
        """The one before the current one, as far as it is kept; else the current one."""
        return self._history[-2][1] if len(self._history) > 1 else self.current

    def at(self, index: Index) -> Configuration:
        """The one in effect right after `index` was appended."""
        return next((known for at, known in reversed(self._history) if at <= index), self._history[0][1])

    def _refresh(self) -> None:
        self.current_index, self.current = self._history[-1]


def plan(current: Configuration, change: Change, caught_up: Callable[[NodeId], bool]) -> Configuration:
    """What `change` makes of `current`: joint if the voters change, else in force at once. Raises `InvalidChange`.

    A new voter that has not caught up joins as a learner first: an empty log in the quorum would stop every commit.
    """
    voters, learners, joining = set(current.voters), set(current.learners), set(current.joining)
    _check(current, change)
    for node in change.add_voters:
        if node in learners and caught_up(node):
            voters.add(node)
            learners.discard(node)
            joining.discard(node)
        else:
            learners.add(node)
            joining.add(node)
    learners.update(change.add_learners)
    for node in (*change.demote, *change.remove):
        for group in (voters, learners, joining):
            group.discard(node)
    learners.update(change.demote)
    planned = configuration_of(current, voters, learners, joining)
    if planned == current or not voters or len(planned.members) > bounds.members_max:
        raise InvalidChange("it would change nothing, leave no voter, or make too many members")
    return planned


def configuration_of(
    current: Configuration, voters: set[NodeId], learners: set[NodeId], joining: set[NodeId]
) -> Configuration:
    """The step from `current` to these members: through a joint configuration if the voters differ."""
    new_voters = tuple(sorted(voters))
    return Configuration(
        voters=new_voters,
        outgoing=current.voters if new_voters != current.voters else (),
        learners=tuple(sorted(learners)),
        joining=tuple(sorted(joining)),
    )


def promote(current: Configuration, nodes: Sequence[NodeId]) -> Configuration:
    """The joint configuration in which these learners vote."""
    kept = set(current.learners) - set(nodes)
    return configuration_of(current, {*current.voters, *nodes}, kept, set(current.joining) - set(nodes))


def _check(current: Configuration, change: Change) -> None:
    named = [*change.add_voters, *change.add_learners, *change.demote, *change.remove]
    wrong = [
        *(node for node in named if node < 1 or named.count(node) > 1),
        *(node for node in change.add_voters if node in current.voters),
        *(node for node in change.add_learners if node in current.members),
        *(node for node in change.demote if node not in current.voters),
        *(node for node in change.remove if node not in current.members),
    ]
    if wrong:
        raise InvalidChange(f"not possible for {sorted(set(wrong))}")
