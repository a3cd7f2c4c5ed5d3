"""The file of rows that were not accepted: one JSON object a line, with line number, reason and the row itself.

Made when there is a first one; 0600, for it holds personal data. Its length is remembered with each durable window, so
that a resumed import goes on behind those and no row is told twice.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from denizen.bulk.imports.messages import Problem
from denizen.errors import Invalid


class Rejects:
    """Writes the file; `start` is what an earlier run left of it that stays."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.bytes = start
        self._file: IO[bytes] | None = None
        if start == 0:
            path.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        """Whether there is anything in it."""
        return self.bytes > 0

    def add(self, problems: Sequence[Problem]) -> None:
        """Write these, durably."""
        if not problems:
            return
        file = self._open()
        content = b"".join(_line(problem) for problem in sorted(problems, key=lambda problem: problem.line))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        self.bytes += len(content)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> IO[bytes]:
        if self._file is None:
            try:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            except OSError as error:
                raise Invalid(
                    f"{self.path} cannot be written: {error.strerror}; choose another file (--rejects)"
                ) from error
            os.ftruncate(handle, self.bytes)
            os.lseek(handle, self.bytes, os.SEEK_SET)
            self._file = os.fdopen(handle, "wb")
        return self._file


def _line(problem: Problem) -> bytes:
    row = {
        "line": problem.line,
        "code": problem.code,
        "field": problem.field,
        "detail": problem.detail,
        "row": problem.raw,
    }
    return msgspec.json.encode(row) + b"\n"
