"""All checkers together, called by the simulation after every step of every node."""

from typing import Any

from denizen.raft.effects import Effects, ReadReady
from denizen.raft.sim.checkers.leaders import OneLeaderPerTerm
from denizen.raft.sim.checkers.ledger import Ledger
from denizen.raft.sim.checkers.logs import LogMatching
from denizen.raft.sim.checkers.monotonic import Monotonic
from denizen.raft.sim.checkers.outcomes import Outcomes
from denizen.raft.sim.machines import Workload
from denizen.raft.sim.node import SimNode
from denizen.raft.types import Entry, Index


class Watch:
    """Sees everything that can be seen from outside of the nodes."""

    def __init__(self, workload: Workload) -> None:
        self._leaders = OneLeaderPerTerm()
        self._logs = LogMatching()
        self._monotonic = Monotonic()
        self.ledger = Ledger(workload)
        self._outcomes = Outcomes(self.ledger)
        self.elections = 0

    @property
    def acknowledged_index(self) -> Index:
        """What a read that begins now must see."""
        return self._outcomes.seen

    def started(self, node: SimNode) -> None:
        """A node begins a life."""
        self._monotonic.started(node)

    def stepped(self, node: SimNode, effects: Effects) -> None:
        """A node has taken a step, whose effects are not carried out yet."""
        committed = self._monotonic.stepped(node, effects)
        self._logs.stepped(node, effects)
        if node.core.commit > committed:
            self.ledger.stepped(node)
            self.ledger.commits(node, committed)
        if effects.apply:
            self.ledger.applies(node, effects)
        if self._leaders.stepped(node, effects):
            self.elections += 1
            self.ledger.leads(node)

    def acknowledged(self, entry: Entry, result: Any) -> None:
        """A client is answered."""
        self._outcomes.acknowledged(entry, result)

    def read(self, node: SimNode, ready: ReadReady, floor: Index) -> None:
        """A client reads."""
        self._outcomes.read(node, ready, floor)

    def at_end(self, nodes: list[SimNode]) -> None:
        """The run is over and calm."""
        self._outcomes.at_end(nodes)
