"""An import's journal, `<data>/imports/<id>.jsonl`: who it is, and which windows are durable.

The first line is the header, then a line a window, written when all its rows are committed, and at last the summary.
Its key makes all ids of the import, so a resumed import makes the same ones; hence 0600. The file is locked by the
parent and, through the inherited handle, by every worker: whoever gets the lock knows that nothing of that import runs.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from denizen.bulk.imports.messages import Report
from denizen.errors import BadDeployment
from denizen.files import sync_directory

FORMAT = 1
_COUNTS = ("rows", "imported", "before", "updated", "unchanged", "skipped", "rejected")


class Header(Struct, frozen=True):
    """The first line. `input` tells one file from another; None for standard input."""

    format: int
    id: UUID
    key: bytes
    started_ms: int
    input: str | None
    size: int | None
    head: str | None
    options: dict[str, Any]


class WindowLine(Struct, frozen=True):
    """A durable window: its counts, and how long the file of rejected rows was after it."""

    first_line: int
    lines: int
    counts: dict[str, int]
    rejects_bytes: int


class Journal:
    """An opened, locked journal."""

    def __init__(self, path: Path, handle: int, header: Header, done: list[WindowLine]) -> None:
        self.path = path
        self.handle = handle
        self.header = header
        self.done = {line.first_line: line for line in done}
        self.resumed = bool(done) or os.fstat(handle).st_size > 0

    @property
    def rejects_bytes(self) -> int:
        """How much of the file of rejected rows belongs to durable windows: what the last one to be done left."""
        return next((line.rejects_bytes for line in reversed(self.done.values())), 0)

    def totals(self) -> dict[str, int]:
        """The counts of all durable windows."""
        totals = dict.fromkeys(_COUNTS, 0)
        for line in self.done.values():
            for name, count in line.counts.items():
                totals[name] += count
        return totals

    def add(self, report: Report, rejects_bytes: int) -> None:
        """Remember a durable window, durably."""
        counts = {name: getattr(report, name) for name in _COUNTS}
        line = WindowLine(report.first_line, report.lines, counts, rejects_bytes)
        self.done[line.first_line] = line
        self._write(line)

    def finish(self, summary: Any) -> None:
        """The import is complete: it is not resumed any more."""
        self._write({"finished": summary})

    def close(self) -> None:
        """Give the lock back."""
        os.close(self.handle)

    def discard(self) -> None:
        """Forget the import: it did nothing."""
        self.path.unlink()
        self.close()

    def _write(self, line: Any) -> None:
        os.write(self.handle, msgspec.json.encode(line) + b"\n")
        os.fsync(self.handle)


def create(directory: Path, input_path: str | None, head: str | None, options: dict[str, Any]) -> Journal:
    """Begin a new import."""
    directory.mkdir(mode=0o700, exist_ok=True)
    size = None if input_path is None else Path(input_path).stat().st_size
    header = Header(
        FORMAT, uuid4(), secrets.token_bytes(16), time.time_ns() // 1_000_000, input_path, size, head, options
    )
    path = directory / f"{header.id}.jsonl"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    journal = Journal(path, handle, header, [])
    journal._write(header)
    sync_directory(directory)
    return journal


def find(directory: Path, input_path: str, head: str) -> Journal | None:
    """The newest unfinished import of this very file, opened. Raises `BadDeployment` if it runs just now."""
    size = Path(input_path).stat().st_size
    candidates = []
    for path, header, _, finished in _all(directory):
        if not finished and (header.input, header.size, header.head) == (input_path, size, head):
            candidates.append((header.started_ms, path))
    return _open(max(candidates)[1]) if candidates else None


def find_by_id(directory: Path, import_id: str) -> Journal:
    """The unfinished import of this id, opened. Raises `BadDeployment` if there is none, or it runs just now."""
    for path, header, _, finished in _all(directory):
        if str(header.id) == import_id:
            if finished:
                raise BadDeployment(f"the import {import_id} is complete; nothing is left to resume")
            return _open(path)
    raise BadDeployment(f"there is no import {import_id} in {directory}")


def _open(path: Path) -> Journal:
    handle = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(handle).st_nlink:  # discarded just now, by a command on the same input
            raise BlockingIOError
    except BlockingIOError:
        os.close(handle)
        raise BadDeployment(f"the import {path.stem} runs already; wait for it, or stop it first") from None
    header, done, _, whole = _read(path)
    if header is None:
        os.close(handle)
        raise BadDeployment(f"the journal {path} is damaged")
    os.ftruncate(handle, whole)  # a line that a crash cut off says nothing
    return Journal(path, handle, header, done)


def _all(directory: Path) -> Iterator[tuple[Path, Header, list[WindowLine], bool]]:
    for path in sorted(directory.glob("*.jsonl")):
        header, done, finished, _ = _read(path)
        if header is not None and header.format == FORMAT:
            yield path, header, done, finished


def _read(path: Path) -> tuple[Header | None, list[WindowLine], bool, int]:
    """Header, durable windows, whether it is finished, and the length of its whole lines."""
    header = None
    done: list[WindowLine] = []
    whole = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            if header is None:
                header = msgspec.json.decode(line, type=Header)
            elif line.startswith(b'{"finished"'):
                return header, done, True, whole
            else:
                done.append(msgspec.json.decode(line, type=WindowLine))
        except msgspec.DecodeError:
            break
        whole += len(line)
    return header, done, False, whole
