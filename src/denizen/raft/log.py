"""The log in memory: the entries after a base, and how much of them is durable.

The base is the place before the first entry kept; everything up to it is in a snapshot. All terms of a log come in
runs, and a run of a term begins at the same index in every log that has it (log matching, paper section 5.3). So the
runs alone tell two nodes the last entry they have in common, in one exchange. `_ends` holds running sums of sizes, so
that cutting a batch by bytes costs nothing by the entry.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import itemgetter

from denizen.raft import bounds
from denizen.raft.invariants import invariant
from denizen.raft.messages import TermRun
from denizen.raft.types import Entry, Index, Term

ENTRY_OVERHEAD_BYTES = 24
_term_of_run = itemgetter(0)


class Log:
    """Entries with indices `base_index + 1` .. `last_index`."""

    __slots__ = ("_ends", "_entries", "_runs", "base_index", "base_term", "last_index", "last_term", "persisted")

    def __init__(self, base_index: Index, base_term: Term, entries: Iterable[Entry] = ()) -> None:
        self._clear(base_index, base_term)
        self.append(list(entries))
        self.persisted: Index = self.last_index

    def _clear(self, base_index: Index, base_term: Term) -> None:
        self.base_index = self.last_index = base_index
        self.base_term = self.last_term = base_term
        self._entries: list[Entry] = []
        self._ends: list[int] = [0]
        self._runs: list[tuple[Term, Index]] = [(base_term, base_index)]

    def term(self, index: int) -> Term | None:
        """The term of an entry or of the base; None outside of the log."""
        offset = index - self.base_index - 1
        if 0 <= offset < len(self._entries):
            return self._entries[offset].term
        return self.base_term if offset == -1 else None

    def entry(self, index: int) -> Entry:
        """The entry at an index inside the log."""
        return self._entries[index - self.base_index - 1]

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right after the last one; nothing of them is durable yet."""
        if not entries:
            return
        invariant(entries[0].index == self.last_index + 1, "the log has no holes", at=entries[0].index)
        self._entries.extend(entries)
        sizes = accumulate((len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries), initial=self._ends.pop())
        self._ends.extend(sizes)
        last = entries[-1]
        if last.term != self.last_term:
            self._add_runs(entries)
        self.last_index, self.last_term = last.index, last.term

    def _add_runs(self, entries: Sequence[Entry]) -> None:
        term = self.last_term
        for entry in entries:
            if entry.term != term:
                invariant(entry.term > term, "terms never fall along the log", index=entry.index)
                term = entry.term
                self._runs.append((term, entry.index))

    def truncate(self, first: int) -> None:
        """Forget the entry at `first` and everything after it."""
        offset = first - self.base_index - 1
        invariant(offset >= 0, "nothing below the base is truncated", first=first, base=self.base_index)
        del self._entries[offset:]
        del self._ends[offset + 1 :]
        while self._runs[-1][1] >= first:
            self._runs.pop()
        self.last_index = Index(first - 1)
        self.last_term = self._runs[-1][0]
        self.persisted = min(self.persisted, self.last_index)

    def compact(self, index: Index) -> None:
        """Forget everything up to and including `index`, which becomes the base."""
        term = self.term(index)
        if term is None or index <= self.base_index:
            return
        dropped = index - self.base_index
        del self._entries[:dropped]
        before = self._ends[dropped]
        self._ends = [end - before for end in self._ends[dropped:]]
        self._runs = [(term, index), *(run for run in self._runs if run[1] > index)]
        self.base_index, self.base_term = index, term

    def reset(self, index: Index, term: Term) -> None:
        """Forget everything: the log begins anew after a snapshot. Nothing of it is durable until that is."""
        self._clear(index, term)
        self.persisted = Index(0)

    def slice(self, first: int, last: int) -> list[Entry]:
        """The entries `first` .. `last`."""
        base = self.base_index + 1
        return self._entries[first - base : last + 1 - base]

    def batch(self, first: int, entries_max: int, bytes_max: int) -> tuple[list[Entry], int]:
        """Entries from `first`, at least one, within the limits; and their bytes."""
        start = first - self.base_index - 1
        stop = min(start + entries_max, len(self._entries))
        before = self._ends[start]
        if self._ends[stop] - before > bytes_max:
            stop = max(bisect_right(self._ends, before + bytes_max, start, stop) - 1, start + 1)
        return self._entries[start:stop], self._ends[stop] - before

    def tail_start(self, last: int, entries_max: int, bytes_max: int) -> Index:
        """The place before the longest tail that ends with `last` and is within both limits."""
        end = last - self.base_index
        within = bisect_left(self._ends, self._ends[end] - bytes_max, max(end - entries_max, 0), end)
        return Index(self.base_index + within)

    def bytes_after(self, index: int) -> int:
        """The bytes of all entries after an index inside the log."""
        return self._ends[-1] - self._ends[max(index - self.base_index, 0)]

    def runs(self) -> tuple[TermRun, ...]:
        """The newest runs of terms, newest first, as a follower describes its log."""
        found: list[TermRun] = []
        last = self.last_index
        for term, first in reversed(self._runs[-bounds.term_runs_max :]):
            found.append(TermRun(term, last))
            last = Index(first - 1)
        return tuple(found)

    def agreement(self, runs: Sequence[TermRun]) -> Index:
        """The last index that this log and the one with these runs have in common, as far as they tell."""
        for run in runs:
            at = bisect_left(self._runs, run.term, key=_term_of_run)
            if at < len(self._runs) and self._runs[at][0] == run.term:
                last = self._runs[at + 1][1] - 1 if at + 1 < len(self._runs) else self.last_index
                return Index(min(run.last_index, last))
        return Index(0)
