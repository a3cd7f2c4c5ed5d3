"""Reading the log back after a stop, and telling a torn tail from damage.

Writes after the last sync may be lost or torn: they were never acknowledged and are dropped. Anything else that does
not read back is damage: the node may have voted or acknowledged on the strength of it, so a shorter log would be a lie.
A bad record counts as damage when any of these says that it was durable: the durable mark, a valid record written
after a later sync, or a following segment (one is begun only when the one before it is synced to its end).
"""

from dataclasses import dataclass, field
from pathlib import Path

from denizen.raft.errors import LogDamaged, WrongDirectory
from denizen.raft.types import Entry, EntryKind, HardState, Index, NodeId, Term
from denizen.raft.wal.files import Disk
from denizen.raft.wal.mark import Mark
from denizen.raft.wal.record import (
    DROP,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Record,
    RecordKind,
    SegmentHeader,
    proves_durable,
    read_records,
)

_KINDS = list(EntryKind)


@dataclass(slots=True)
class Segment:
    """A segment on the disk: its number, where its records end, and the highest entry index in it."""

    sequence: int
    path: Path
    end: int = SEGMENT_HEADER_BYTES
    last_index: int = 0


@dataclass(slots=True)
class Recovered:
    """What the log says: hard state, the point that it begins after (`base_*`), its entries, the bytes it dropped."""

    hard_state: HardState | None = None
    base_index: int = 0
    base_term: int = 0
    entries: list[Entry] = field(default_factory=list)
    dropped_bytes: int = 0

    def add(self, record: Record, segment: Segment) -> None:
        """Apply one record: the later one wins."""
        if record.kind >= RecordKind.ENTRY:
            self._add_entry(record, segment)
        elif record.kind == RecordKind.HARD_STATE:
            self.hard_state = HardState(term=Term(record.term), vote=NodeId(record.index))
        elif record.kind == RecordKind.BASE:
            self.start_after(record.index, record.term, keep=record.payload != DROP)

    def start_after(self, index: int, term: int, *, keep: bool = True) -> None:
        """Drop the entries that a snapshot at (`index`, `term`) stands for; all of them if they contradict it."""
        if index <= self.base_index:
            return
        if not keep:
            self.entries.clear()
        self.base_index, self.base_term = index, term
        first = self.entries[0].index if self.entries else 0
        at = index - first
        if self.entries and 0 <= at < len(self.entries) and self.entries[at].term == term:
            del self.entries[: at + 1]
        elif not self.entries or first != index + 1:
            self.entries.clear()

    def _add_entry(self, record: Record, segment: Segment) -> None:
        segment.last_index = max(segment.last_index, record.index)
        if record.index <= self.base_index:
            return
        if self.entries:
            keep = record.index - self.entries[0].index
            if keep > len(self.entries):
                raise damaged(segment.path, record.offset, f"entries before {record.index} are missing")
            del self.entries[max(keep, 0) :]
        kind = _KINDS[record.kind - RecordKind.ENTRY]
        self.entries.append(Entry(Index(record.index), Term(record.term), kind, record.payload))


def damaged(path: Path, offset: int, what: str) -> LogDamaged:
    """The error for damage at a place, saying what to do."""
    return LogDamaged(
        f"{path} at byte {offset}: {what}. This node may have voted or acknowledged on what is lost, so it must not "
        f"take part again as it is. {LogDamaged.remedy}",
        path=str(path),
        offset=offset,
    )


def segment_path(directory: Path, sequence: int) -> Path:
    """Where segment number `sequence` is."""
    return directory / f"{sequence:016d}.wal"


def recover(directory: Path, disk: Disk, mark: Mark) -> tuple[Recovered, list[Segment]]:
    """Read every segment in order.

    Raises `LogDamaged` where something durable is missing or changed, `WrongDirectory` for a file with a foreign name.
    """
    recovered = Recovered()
    segments = [_segment(path) for path in sorted(directory.glob("*.wal"))]
    if not segments and mark.sequence:
        raise damaged(segment_path(directory, mark.sequence), 0, "the log's segments are missing")
    for at, segment in enumerate(segments):
        data = disk.read(segment.path)
        header = SegmentHeader.decode(data)
        if header is None or header.sequence != segment.sequence:
            raise damaged(segment.path, 0, "the segment's header is damaged")
        if at and segment.sequence != segments[at - 1].sequence + 1:
            raise damaged(segment.path, 0, "the segment before it is missing")
        if at and header.previous_bytes != segments[at - 1].end:
            raise damaged(segments[at - 1].path, segments[at - 1].end, "a durable record is damaged or missing")
        for record in read_records(data, segment.sequence):
            recovered.add(record, segment)
            segment.end = record.offset + RECORD_HEADER_BYTES + len(record.payload)
        if at == len(segments) - 1:
            recovered.dropped_bytes = _judge_tail(segment, data, mark)
    return recovered, segments


def _segment(path: Path) -> Segment:
    sequence = int(path.stem) if path.stem.isdecimal() else 0
    if path != segment_path(path.parent, sequence):
        raise WrongDirectory(
            f"{path} has no name that the log gives (16 digits): move it out of this directory, which is the node's "
            "alone, or give a segment that was renamed its name back; then start the node again"
        )
    return Segment(sequence, path)


def _judge_tail(segment: Segment, data: bytes, mark: Mark) -> int:
    """The bytes of a torn tail after the last valid record; raise if they were durable."""
    if mark > Mark(segment.sequence, segment.end):
        raise damaged(segment.path, segment.end, "a durable record is damaged or missing")
    tail = data[segment.end :].rstrip(b"\x00")
    if tail and proves_durable(data, segment.sequence, segment.end):
        raise damaged(segment.path, segment.end, "a durable record is damaged; valid ones follow it")
    return len(tail)
