"""The durable log: term, vote, entries and the log's start in one series of append-only segments.

One `save` is one write and one fsync, however many entries it carries: when it returned, all of it is durable. A record
with an index already present replaces that entry and every later one, as in Raft's own log. Segments have a fixed size
with their space reserved, so that a full disk is met when a segment is begun; each starts with the hard state and the
base, so that older ones can be deleted whole once a snapshot covers their entries.

After a failed write or fsync nothing is known about the disk (the kernel may have dropped the data and forgotten the
error), so the log refuses every later call: the node stops, and the next start reads what is really there.
All methods block; the node calls them from its disk thread, one at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from denizen.raft.errors import DiskFailed
from denizen.raft.types import Entry, HardState
from denizen.raft.wal.files import Disk
from denizen.raft.wal.mark import Mark, MarkFile
from denizen.raft.wal.record import DROP, SEGMENT_HEADER_BYTES, RecordKind, SegmentHeader, encode_record
from denizen.raft.wal.recovery import Recovered, Segment, damaged, recover, segment_path

__all__ = ["Base", "DurableLog", "Recovered"]

_HARD_STATE, _BASE, _ENTRY = int(RecordKind.HARD_STATE), int(RecordKind.BASE), int(RecordKind.ENTRY)


@dataclass(frozen=True, slots=True)
class Base:
    """The log begins after this place, which a snapshot stands for. Entries after it stay only if `keep`."""

    index: int
    term: int
    keep: bool = True


class DurableLog:
    """The log of one node in its directory. `open` first; `close` last."""

    def __init__(self, directory: Path, *, segment_bytes: int, disk: Disk | None = None) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._disk = disk or Disk()
        self._segments: list[Segment] = []
        self._hard_state = HardState()
        self._base: Base | None = None
        self._fd = -1
        self._reserved = 0
        self._mark: MarkFile | None = None
        self._failure: OSError | None = None
        self.syncs = 0
        self.bytes_written = 0

    def open(self, *, new: bool = False) -> Recovered:
        """Read the log back, drop a torn tail, and make what was read durable; begin it if it is `new`.

        Raises `LogDamaged`, `WrongDirectory`, `DiskFailed`.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        mark_file = self._mark = MarkFile(self._directory / "durable.mark", self._disk)
        recovered, self._segments = recover(self._directory, self._disk, mark_file.mark)
        self._hard_state = recovered.hard_state or self._hard_state
        if recovered.base_index:
            self._base = Base(recovered.base_index, recovered.base_term)
        try:
            self._disk.sync_directory(self._directory)
            if not self._segments and not new:
                raise damaged(self._directory, 0, "the log is missing")
            if self._segments:
                self._reopen(self._segments[-1], mark_file.mark)
            else:
                self._begin_segment(1, previous_bytes=0, reserve=self._segment_bytes)
        except OSError as error:
            raise self._failed(error) from error
        return recovered

    def save(
        self,
        hard_state: HardState | None = None,
        entries: Sequence[Entry] = (),
        base: Base | None = None,
    ) -> None:
        """Write one batch and sync it: durable when this returns. Raises `DiskFailed`, then and ever after.

        `base` says that a snapshot, already durable, stands for every entry up to it.
        """
        if self._failure is not None:
            raise self._failed(self._failure)
        self._hard_state = hard_state or self._hard_state
        self._base = replace(base, keep=True) if base is not None else self._base
        try:
            self._append(hard_state, entries, base)
        except OSError as error:
            raise self._failed(error) from error

    def compact(self, index: int) -> int:
        """Delete the oldest segments that hold no entry above `index`; return how many."""
        gone = 0
        while len(self._segments) > 1 and self._segments[0].last_index <= index:
            self._disk.remove(self._segments.pop(0).path)
            gone += 1
        return gone

    def close(self) -> None:
        """Close the files; everything saved is durable already."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def _append(self, hard_state: HardState | None, entries: Sequence[Entry], base: Base | None) -> None:
        segment = self._segments[-1]
        parts, size = self._encode(hard_state, entries, base, segment)
        if segment.end + size > self._reserved and segment.end > SEGMENT_HEADER_BYTES:
            reserve = max(self._segment_bytes, size + 2 * SEGMENT_HEADER_BYTES + 4096)
            self._begin_segment(segment.sequence + 1, previous_bytes=segment.end, reserve=reserve)
            segment = self._segments[-1]
            parts, size = self._encode(hard_state, entries, base, segment)
        self._disk.write(self._fd, b"".join(parts), segment.end)
        self._disk.sync(self._fd)
        segment.end += size
        if entries:
            segment.last_index = max(segment.last_index, *(entry.index for entry in entries))
        self.syncs += 1
        self.bytes_written += size
        self._note_durable(segment)

    @staticmethod
    def _encode(
        hard_state: HardState | None, entries: Sequence[Entry], base: Base | None, segment: Segment
    ) -> tuple[list[bytes], int]:
        """The records of one batch, the hard state first: a torn batch keeps a prefix, which must make sense."""
        parts: list[bytes] = []
        seed, durable, size = segment.sequence, segment.end, 0
        if hard_state is not None:
            size += encode_record(parts, seed, durable, _HARD_STATE, hard_state.term, hard_state.vote, b"")
        if base is not None:
            size += encode_record(parts, seed, durable, _BASE, base.term, base.index, b"" if base.keep else DROP)
        for entry in entries:
            size += encode_record(parts, seed, durable, _ENTRY + entry.kind, entry.term, entry.index, entry.data)
        return parts, size

    def _begin_segment(self, sequence: int, *, previous_bytes: int, reserve: int) -> None:
        """Start a segment. It gets its name only when its first records are durable, so it is never found half made."""
        segment = Segment(sequence, segment_path(self._directory, sequence))
        temporary = segment.path.with_suffix(".tmp")
        fd = self._disk.create(temporary)
        try:
            self._disk.reserve(fd, reserve)
            parts, size = self._encode(self._hard_state, (), self._base, segment)
            header = SegmentHeader(sequence, previous_bytes).encode()
            self._disk.write(fd, header + b"".join(parts), 0)
            self._disk.sync(fd)
            self._disk.rename(temporary, segment.path)
            self._disk.sync_directory(self._directory)
        except OSError:
            self._disk.close(fd)
            raise
        segment.end += size
        if self._fd >= 0:
            self._disk.close(self._fd)
        self._fd, self._reserved = fd, reserve
        self._segments.append(segment)

    def _reopen(self, segment: Segment, mark: Mark) -> None:
        """Continue the last segment: cut a torn tail off, and write what no sync is known of once more and sync it.

        The second write matters: after a failed fsync the kernel may hold pages that it believes to be clean.
        """
        data = self._disk.read(segment.path)
        self._fd = self._disk.open(segment.path)
        self._reserved = max(len(data), self._segment_bytes)
        self._disk.truncate(self._fd, segment.end)
        self._disk.reserve(self._fd, self._reserved)
        start = mark.offset if mark.sequence == segment.sequence else 0
        if start < segment.end:
            self._disk.write(self._fd, data[start : segment.end], start)
        self._disk.sync(self._fd)
        self._note_durable(segment)

    def _note_durable(self, segment: Segment) -> None:
        if self._mark is not None:
            self._mark.write(Mark(segment.sequence, segment.end))

    def _failed(self, error: OSError) -> DiskFailed:
        self._failure = error
        return DiskFailed(
            f"the log in {self._directory} could not be written: {error}. Nothing unsynced was acknowledged. Free "
            "space or replace the disk, then start the node again.",
            directory=str(self._directory),
            errno=error.errno,
        )
