"""At most one leader a term (paper, figure 3: election safety)."""

from denizen.raft.effects import Effects
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.violation import Violation
from denizen.raft.types import NodeId, Role, Term


class OneLeaderPerTerm:
    """Remembers who led each term."""

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}

    def stepped(self, node: SimNode, effects: Effects) -> bool:
        """Look at a step; returns whether the node began to lead in it."""
        told = effects.leadership
        if told is None or told.role is not Role.LEADER:
            return False
        known = self._leaders.setdefault(told.term, node.id)
        if known != node.id:
            raise Violation("one leader a term", f"n{known} and n{node.id} both lead term {told.term}")
        return True
