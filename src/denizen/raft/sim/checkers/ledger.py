"""What is committed: the same everywhere (state machine safety), for ever, and in every later leader's log (leader
completeness).
"""

from denizen.raft.effects import Effects
from denizen.raft.sim.machines import Workload
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.violation import Violation
from denizen.raft.types import Entry, EntryKind, Index, Term


class Ledger:
    """Every committed entry, when it was first seen committed, and what its command has to result in."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self.entries: list[Entry] = []
        self._committed_in: list[Term] = []
        self.results: dict[Index, object] = {}

    def stepped(self, node: SimNode) -> None:
        """Take in what a node newly believes to be committed."""
        core = node.core
        known = len(self.entries)
        for index in range(known + 1, core.commit + 1):
            entry = core.entry_at(Index(index))
            if entry is None:
                raise Violation("state machine safety", f"n{node.id} commits {index}, which nobody was seen to commit")
            self.entries.append(entry)
            self._committed_in.append(core.term)
            if entry.kind is EntryKind.COMMAND:
                self.results[entry.index] = self._workload.expect(entry.index, entry.data)

    def commits(self, node: SimNode, before: Index) -> None:
        """Compare what a node commits in a step with what was committed."""
        for index in range(before + 1, node.core.commit + 1):
            entry = node.core.entry_at(Index(index))
            if entry is not None and entry != self.entries[index - 1]:
                raise Violation("state machine safety", f"n{node.id} commits another entry at {index} than others did")

    def applies(self, node: SimNode, effects: Effects) -> None:
        """Compare what a node applies in a step."""
        for entry in effects.apply:
            if entry.index > len(self.entries) or entry != self.entries[entry.index - 1]:
                raise Violation("state machine safety", f"n{node.id} applies another entry at {entry.index}")

    def leads(self, node: SimNode) -> None:
        """A new leader must have everything that was committed in terms before its own."""
        core = node.core
        for index in range(len(self.entries), core.first_index - 1, -1):
            if self._committed_in[index - 1] >= core.term:
                continue
            entry = core.entry_at(Index(index))
            if entry != self.entries[index - 1]:
                raise Violation("leader completeness", f"n{node.id} leads term {core.term} without {index}")
