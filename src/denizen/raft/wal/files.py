"""The few file operations that durability stands on, in one small class.

Everything that the log and the snapshot store do to a disk goes through `Disk`, so that tests put a faulty one in its
place: one that fails an fsync, runs out of space in mid-write or stops at the n-th operation. Directories are synced as
well as files: a file whose directory entry is not durable is not there after a power loss.
"""

import os
from collections.abc import Iterable
from pathlib import Path


class Disk:
    """The real disk: every write is durable when `sync` (a file) or `sync_directory` (its name) returned."""

    def create(self, path: Path) -> int:
        """Open a new empty file for reading and writing; an old one of that name is emptied."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open a file for reading and writing, creating it if it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """Close without syncing."""
        os.close(fd)

    def read(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; a short write is continued, so that running out of space is an error."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written

    def reserve(self, fd: int, size: int) -> None:
        """Make sure that `size` bytes of space are there; they read as zeros until written."""
        os.posix_fallocate(fd, 0, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Return when the file's data are on the disk."""
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's entries are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Replace `new` by `old` in one step."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file; a missing one is fine."""
        path.unlink(missing_ok=True)

    def write_file(self, path: Path, parts: Iterable[bytes]) -> None:
        """Write a whole file so that after a crash either the old or the new content is there, never a mixture."""
        temporary = path.with_name(path.name + ".tmp")
        fd = self.create(temporary)
        try:
            offset = 0
            for part in parts:
                self.write(fd, part, offset)
                offset += len(part)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)


class UnsafeDisk(Disk):
    """A disk that is never synced: quick, and wrong after a power loss. Only for `unsafe_no_fsync`."""

    def sync(self, fd: int) -> None:
        """Do nothing: the data reach the disk when the kernel likes."""

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""
