"""Majorities: what a quorum has reached, and who has won, under a simple or a joint configuration (paper, section
6).
"""

from collections.abc import Callable, Mapping
from enum import Enum

from denizen.raft.types import Configuration, NodeId


class Outcome(Enum):
    """How a vote stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def reached(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
    """The highest value that a quorum has reached or passed: a match index, a round, a moment. 0 without voters."""
    if not configuration.outgoing:
        return _majority_value(configuration.voters, value_of)
    return min(_majority_value(configuration.voters, value_of), _majority_value(configuration.outgoing, value_of))


def _majority_value(voters: tuple[NodeId, ...], value_of: Callable[[NodeId], int]) -> int:
    if not voters:
        return 0
    values = sorted(map(value_of, voters))
    return values[(len(values) - 1) // 2]


def tally(configuration: Configuration, votes: Mapping[NodeId, bool]) -> Outcome:
    """How the votes given so far decide."""
    outcomes = [_tally(voters, votes) for voters in (configuration.voters, configuration.outgoing) if voters]
    if not outcomes or Outcome.LOST in outcomes:
        return Outcome.LOST
    return Outcome.WON if all(outcome is Outcome.WON for outcome in outcomes) else Outcome.PENDING


def _tally(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> Outcome:
    needed = len(voters) // 2 + 1
    yes = sum(votes.get(node, False) for node in voters)
    no = sum(not votes.get(node, True) for node in voters)
    if yes >= needed:
        return Outcome.WON
    return Outcome.LOST if len(voters) - no < needed else Outcome.PENDING
