"""Log matching (paper, figure 3): an index and a term name one entry, and everything before it, in all logs."""

from denizen.raft.effects import Effects
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.violation import Violation
from denizen.raft.types import Entry, Index, Term


class LogMatching:
    """Remembers, for every index and term ever written, the entry and the term before it; equal ones then share all
    before.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Index, Term], tuple[Entry, Term | None]] = {}

    def stepped(self, node: SimNode, effects: Effects) -> None:
        """Look at what a step appends."""
        if effects.write is None or not effects.write.entries:
            return
        entries = effects.write.entries
        before = node.core.term_at(Index(entries[0].index - 1))
        for entry in entries:
            known, known_before = self._seen.setdefault((entry.index, entry.term), (entry, before))
            if known != entry or (before is not None and known_before is not None and before != known_before):
                where = f"{entry.index}/t{entry.term}"
                raise Violation("log matching", f"n{node.id} has another entry, or another one before it, at {where}")
            before = entry.term
