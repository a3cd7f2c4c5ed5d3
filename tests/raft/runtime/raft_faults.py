"""A disk that fails on purpose, and small ways to damage files."""

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from denizen.raft.wal import Disk


class Crash(Exception):
    """The process ends here: whatever was not done is never done."""


class FaultyDisk(Disk):
    """Counts what changes the disk, and fails at a chosen operation.

    `crash_at` raises `Crash` instead of the n-th change; the test then opens the directory anew, as after a kill.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.crash_at: int | None = None
        self.fail_sync: Callable[[], OSError | None] = lambda: None
        self.space: int | None = None
        """Bytes that may still be written; the write beyond is cut short and fails."""
        self.syncs = 0

    def _change(self) -> None:
        if self.changes == self.crash_at:
            raise Crash(f"at change {self.changes}")
        self.changes += 1

    def create(self, path: Path) -> int:
        self._change()
        return super().create(path)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._change()
        if self.space is not None:
            if len(data) > self.space:
                super().write(fd, data[: self.space], offset)
                raise OSError(errno.ENOSPC, "No space left on device")
            self.space -= len(data)
        super().write(fd, data, offset)

    def reserve(self, fd: int, size: int) -> None:
        self._change()
        super().reserve(fd, size)

    def truncate(self, fd: int, size: int) -> None:
        self._change()
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._change()
        self.syncs += 1
        error = self.fail_sync()
        if error is not None:
            raise error
        super().sync(fd)

    def sync_directory(self, path: Path) -> None:
        self._change()
        super().sync_directory(path)

    def rename(self, old: Path, new: Path) -> None:
        self._change()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._change()
        super().remove(path)


class PowerLossDisk(FaultyDisk):
    """Remembers what was synced; `lose_power` takes back all the rest: bytes, new names, renames and removals."""

    def __init__(self) -> None:
        super().__init__()
        self._count = count()
        self._ids: dict[int, int] = {}
        """Inode to a number of our own: inodes are used again, and a removed file may come back."""
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._ids.pop(os.fstat(fd).st_ino, None)
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        status = os.fstat(fd)
        self._bytes[self._id(status.st_ino)] = os.pread(fd, status.st_size, 0)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self._names[path] = {file.name: self._id(file.stat().st_ino) for file in path.iterdir()}

    def lose_power(self) -> None:
        """Leave on the disk what is durable, and nothing else."""
        for directory, names in self._names.items():
            for path in directory.iterdir():
                path.unlink()
            for name, id in names.items():
                (directory / name).write_bytes(self._bytes.get(id, b""))

    def _id(self, inode: int) -> int:
        return self._ids.setdefault(inode, next(self._count))


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)
