"""A node's disk: what was synced survives a crash, of the rest some prefix does, and a byte may rot.

A write is a row of records: the adoption of a snapshot, the hard state, then the entries. A crash keeps the synced
ones and any number of those after, as a torn write does. A rotten entry that was durable once takes everything after
it along; the node is then damaged, and its disk remembers so until the core says that it is repaired.
"""

from random import Random

from denizen.raft.effects import Write, WriteChunk
from denizen.raft.types import Configuration, Entry, HardState, Index, Repair, Restored, Snapshot, Term

Record = HardState | Entry | tuple[Snapshot, bool]


class Disk:
    """The durable image, and the records that are not synced yet."""

    def __init__(self, founding: Configuration, rng: Random) -> None:
        self._rng = rng
        self._founding = founding
        self.hard_state = HardState()
        self.snapshot: Snapshot | None = None
        self.base: tuple[Index, Term] = (Index(0), Term(0))
        self.entries: list[Entry] = []
        self.repair_until: Index | None = None
        self.snapshots: dict[Snapshot, bytes] = {}
        """Complete snapshots, own and received, by their description."""
        self.staged: tuple[Snapshot, bytes] | None = None
        self._unsynced: list[tuple[int, list[Record]]] = []

    def write(self, write: Write) -> None:
        """Take in a write; it is not durable yet."""
        records: list[Record] = []
        if write.snapshot is not None:
            records.append((write.snapshot, write.keep_log))
        if write.hard_state is not None:
            records.append(write.hard_state)
        records.extend(write.entries)
        self._unsynced.append((write.number, records))

    def sync(self, number: int) -> None:
        """Everything up to this write is durable."""
        while self._unsynced and self._unsynced[0][0] <= number:
            for record in self._unsynced.pop(0)[1]:
                self._store(record)

    def _store(self, record: Record) -> None:
        if isinstance(record, Entry):
            keep = record.index - self.base[0] - 1
            del self.entries[keep:]
            self.entries.append(record)
        elif isinstance(record, HardState):
            self.hard_state = record
        else:
            snapshot, keep_log = record
            self.snapshot = snapshot
            self.entries = [entry for entry in self.entries if keep_log and entry.index > snapshot.index]
            self.base = (snapshot.index, snapshot.term)

    def crash(self) -> None:
        """Power off: of what was not synced, some prefix survives; of what was staged too."""
        records = [record for _, group in self._unsynced for record in group]
        for record in records[: self._rng.randint(0, len(records))]:
            self._store(record)
        self._unsynced = []
        if self.staged is not None:
            snapshot, data = self.staged
            self.staged = (snapshot, data[: self._rng.randint(0, len(data))])

    def rot(self) -> bool:
        """Flip a bit in a durable entry. Returns whether there was one."""
        if not self.entries:
            return False
        at = self._rng.randrange(len(self.entries))
        self.repair_until = max(self.repair_until or Index(0), self.entries[-1].index)
        del self.entries[at:]
        return True

    def made(self, snapshot: Snapshot, data: bytes) -> None:
        """A snapshot of the node's own is durable."""
        self.snapshots = {known: bytes_ for known, bytes_ in self.snapshots.items() if known.index > snapshot.index}
        self.snapshots[snapshot] = data
        if self.snapshot is None or snapshot.index > self.snapshot.index:
            self.snapshot = snapshot

    def compact(self, index: Index) -> None:
        """Forget the entries up to `index`."""
        gone = index - self.base[0]
        if 0 < gone <= len(self.entries):
            self.base = (index, self.entries[gone - 1].term)
            del self.entries[:gone]

    def stage(self, chunk: WriteChunk) -> tuple[int, bool]:
        """Store a received chunk. Returns how much is stored, and whether it is complete."""
        if self.staged is None or self.staged[0] != chunk.snapshot:
            self.staged = (chunk.snapshot, b"")
        stored = self.staged[1]
        if chunk.offset == len(stored):
            stored += chunk.data
            self.staged = (chunk.snapshot, stored)
            if chunk.last and len(stored) == chunk.snapshot.size:
                self.snapshots[chunk.snapshot] = stored
                return len(stored), True
        return len(stored), False

    def restored(self) -> Restored:
        """What a node that starts finds. A log that ends before the snapshot is begun anew after it."""
        if self.snapshot is not None and self.base[0] + len(self.entries) < self.snapshot.index:
            self.base, self.entries = (self.snapshot.index, self.snapshot.term), []
        return Restored(
            hard_state=self.hard_state,
            snapshot=self.snapshot,
            entries=list(self.entries),
            base_index=self.base[0],
            base_term=self.base[1],
            configuration=self._founding,
            repair=Repair(self.repair_until) if self.repair_until is not None else None,
        )
