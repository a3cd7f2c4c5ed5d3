"""The durable mark: how far the log was once synced, written beside it without a sync of its own.

It is written after each successful sync of the log, so it never claims more than is durable; it may lag after a
power loss, never after a mere crash of the process. Two slots in two sectors are written in turn: one is always whole.
"""

from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from denizen.raft.wal.files import Disk

_SLOT = Struct("<QQ")
_SLOT_BYTES = _SLOT.size + 4
_SECTOR_BYTES = 512


class Mark(NamedTuple):
    """Segment number and offset up to which the log was durable. Marks compare in log order."""

    sequence: int = 0
    offset: int = 0


class MarkFile:
    """Reads the mark once, then writes it after each sync."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        self._fd = disk.open(path)
        data = disk.read(path)
        self.mark = max(self._slot(data, 0), self._slot(data, _SECTOR_BYTES))
        self._turn = 0

    def write(self, mark: Mark) -> None:
        """Remember `mark`; it survives a crash of the process at once, one of the machine a little later."""
        head = _SLOT.pack(*mark)
        self._disk.write(self._fd, head + crc32(head).to_bytes(4, "little"), self._turn * _SECTOR_BYTES)
        self._turn ^= 1
        self.mark = mark

    def close(self) -> None:
        """Sync, so that a stopped node's mark is exact (if the disk still works), and close."""
        with suppress(OSError):
            self._disk.sync(self._fd)
        self._disk.close(self._fd)

    @staticmethod
    def _slot(data: bytes, offset: int) -> Mark:
        slot = data[offset : offset + _SLOT_BYTES]
        if len(slot) < _SLOT_BYTES or crc32(slot[: _SLOT.size]) != int.from_bytes(slot[_SLOT.size :], "little"):
            return Mark()
        return Mark(*_SLOT.unpack_from(slot))
