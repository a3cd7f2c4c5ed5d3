"""The file of rows that were not accepted: one JSON object a line, with line number, reason and the row itself.

Made when there is a first one; 0600, for it holds personal data. Its length is remembered with each durable window, so
that a resumed import goes on behind those and no row is told twice. That of an earlier import makes way; no other file
is ever touched.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from denizen.bulk.imports.messages import Fault, Problem
from denizen.errors import Invalid


class BadRejectsError(Invalid):
    """Rejected rows cannot be written to the file that was named, for it is something else."""

    code, title = "bad_rejects_file", "Not a file for rejected rows"


class _Line(Struct, frozen=True, omit_defaults=True, gc=False):
    line: int
    code: str
    field: str | None
    detail: str
    row: str
    errors: tuple[Fault, ...] = ()


_FIRST_BYTES_MAX: Final = 8 << 20
_decode: Final = msgspec.json.Decoder(_Line).decode


class Rejects:
    """Writes the file; `start` is what an earlier run left of it that stays. `shorter`: not all of that is there.

    Raises `Invalid` at once if it could not be written, or is the input or any other file than one of rejected rows.
    """

    def __init__(self, path: Path, start: int, source: os.stat_result) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        handle = _open(path)
        try:
            status = os.fstat(handle)
            _check(path, handle, status, source)
        finally:
            os.close(handle)
        self.bytes = min(start, status.st_size)
        self.shorter = self.bytes < start
        if self.bytes == 0:
            path.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        """Whether there is anything in it."""
        return self.bytes > 0

    def add(self, problems: Sequence[Problem]) -> None:
        """Write these, durably."""
        if not problems:
            return
        if self._file is None:
            handle = _open(self.path)
            os.ftruncate(handle, self.bytes)
            os.lseek(handle, self.bytes, os.SEEK_SET)
            self._file = os.fdopen(handle, "wb")
        content = b"".join(_line(problem) for problem in sorted(problems, key=lambda problem: problem.line))
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.bytes += len(content)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be written: {error.strerror}; name another file for rejected rows (--rejects)"
        ) from error


def _check(path: Path, handle: int, status: os.stat_result, source: os.stat_result) -> None:
    if os.path.samestat(status, source):
        raise BadRejectsError(f"{path} is the input; name another file for rejected rows (--rejects)")
    if not stat.S_ISREG(status.st_mode) or not _holds_rejected_rows(handle):
        raise BadRejectsError(f"{path} is not a file of rejected rows; name another for them (--rejects)")


def _holds_rejected_rows(handle: int) -> bool:
    """Whether the file is empty, or its first line is a rejected row."""
    with os.fdopen(handle, "rb", closefd=False) as file:
        first = file.readline(_FIRST_BYTES_MAX)
    try:
        return not first or bool(_decode(first))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _line(problem: Problem) -> bytes:
    row = _Line(problem.line, problem.code, problem.field, problem.detail, problem.raw, problem.errors)
    return msgspec.json.encode(row) + b"\n"
