"""What clients were told: acknowledged commands are committed with the result they were told, reads are not stale."""

from typing import Any

from denizen.raft.effects import ReadReady
from denizen.raft.sim.checkers.ledger import Ledger
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.violation import Violation
from denizen.raft.types import Entry, Index


class Outcomes:
    """Remembers how far clients have seen."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._acknowledged: list[Entry] = []
        self.seen = Index(0)
        """The newest index whose effect some client knows of; a read that begins now must see it."""

    def acknowledged(self, entry: Entry, result: Any) -> None:
        """A client is told that its command is done, with this result."""
        self._acknowledged.append(entry)
        self.seen = max(self.seen, entry.index)
        if entry.index > len(self._ledger.entries) or self._ledger.entries[entry.index - 1] != entry:
            raise Violation("acknowledged writes are present", f"{entry.index} was acknowledged but is not committed")
        if self._ledger.results[entry.index] != result:
            expected = self._ledger.results[entry.index]
            raise Violation("applied exactly once", f"{entry.index} gave {result!r} instead of {expected!r}")

    def read(self, node: SimNode, ready: ReadReady, floor: Index) -> None:
        """A client reads the state of a node, and knew of `floor` before it asked."""
        if node.applied < ready.index:
            raise Violation("reads wait", f"n{node.id} was to serve at {ready.index} but has applied {node.applied}")
        if node.applied < floor:
            raise Violation("reads are not stale", f"n{node.id} reads at {node.applied} what was {floor} before")
        self.seen = max(self.seen, node.applied)

    def at_end(self, nodes: list[SimNode]) -> None:
        """When all is calm every member has the same state, and everything acknowledged is in it."""
        for entry in self._acknowledged:
            if self._ledger.entries[entry.index - 1] != entry:
                raise Violation("acknowledged writes are present", f"{entry.index} is gone")
        states = {node.machine.snapshot() for node in nodes}
        if len(states) != 1 or len({node.applied for node in nodes}) != 1:
            raise Violation("same state everywhere", f"{[(node.id, node.applied) for node in nodes]}")
