"""Term, commit and applied never fall while a node lives; its term not even over a restart, once it has spoken in
it.
"""

from denizen.raft.effects import Effects
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.violation import Violation
from denizen.raft.types import Index, NodeId, Term


class Monotonic:
    """Remembers the last values of every node."""

    def __init__(self) -> None:
        self._last: dict[NodeId, tuple[Term, Index, Index]] = {}
        self._spoken: dict[NodeId, Term] = {}

    def started(self, node: SimNode) -> None:
        """A new life may begin with less committed and applied, but not in an older term than it has spoken in."""
        core = node.core
        spoken = self._spoken.get(node.id, 0)
        if core.term < spoken:
            raise Violation("monotonic term", f"n{node.id} restarts in term {core.term}, it spoke in {spoken}")
        self._last[node.id] = (core.term, core.commit, core.applied)

    def stepped(self, node: SimNode, effects: Effects) -> Index:
        """Look at a step; returns the commit index before it."""
        core = node.core
        before = self._last[node.id]
        now = (core.term, core.commit, core.applied)
        if now[0] < before[0] or now[1] < before[1] or now[2] < before[2] or core.applied > core.commit:
            raise Violation("monotonic", f"n{node.id} goes from term, commit, applied {before} to {now}")
        self._last[node.id] = now
        if effects.send:
            self._spoken[node.id] = core.term if not effects.write else self._spoken.get(node.id, Term(0))
        following = before[2] + 1 if effects.restore is None else effects.restore.index + 1
        for entry in effects.apply[:1]:
            if entry.index != following:
                raise Violation("applied without holes", f"n{node.id} applies {entry.index} instead of {following}")
        return before[1]
