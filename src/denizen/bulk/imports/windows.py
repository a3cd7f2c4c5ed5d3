"""Cuts the input into windows: whole lines (NDJSON) or whole records (CSV), always at the same places.

A window is what a worker takes on at a time and what the journal remembers, so a resumed import must cut the same
file in the same way: the cuts depend on nothing but the content. The first windows are small, so that a small file
keeps every worker busy. A line that is too long is refused without ever being held.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from denizen import limits
from denizen.bulk.imports.messages import Problem, Window
from denizen.bulk.imports.source import Source

_FIRST_LINES = 4_096


class Cut(Struct, frozen=True):
    """A window, and the rows that were refused while cutting it."""

    window: Window
    problems: list[Problem]
    position: int  # in the input, after it


def cut(source: Source, *, csv: bool, first_line: int = 1) -> Iterator[Cut]:
    """The windows of the input from `first_line`, at which the source stands."""
    records = _Records(source, csv=csv, line=first_line)
    lines_max = _FIRST_LINES
    while True:
        start = records.line
        parts: list[bytes] = []
        size = 0
        while records.line - start < lines_max and size < limits.import_window_bytes_max:
            record = records.next()
            if record is None:
                break
            parts.append(record)
            size += len(record)
        lines = records.line - start
        if lines:
            window = Window(start, lines, b"".join(parts))
            yield Cut(window, records.take_problems(), source.position)
        if not lines or record is None:
            return
        lines_max = min(lines_max * 2, limits.import_window_lines_max)


class _Records:
    """Reads records; `line` is the number of the next line. A refused line gives an empty record in its place."""

    def __init__(self, source: Source, *, csv: bool, line: int) -> None:
        self._source = source
        self._csv = csv
        self._ahead: deque[bytes] = deque()
        self._problems: list[Problem] = []
        self.line = line

    def take_problems(self) -> list[Problem]:
        problems, self._problems = self._problems, []
        return problems

    def next(self) -> bytes | None:
        """The next record with its line breaks, None at the end."""
        line = self._read()
        if line is None:
            return None
        if not self._csv or not line.count(b'"') & 1:
            self.line += 1
            return self._whole(line)
        return self._quoted(line)

    def _read(self) -> bytes | None:
        """The next line; of one that is too long only the beginning."""
        if self._ahead:
            return self._ahead.popleft()
        line = self._source.readline(limits.import_line_bytes_max + 1)
        if not line:
            return None
        if len(line) > limits.import_line_bytes_max:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = self._source.readline(limits.import_line_bytes_max)
        return line

    def _whole(self, line: bytes) -> bytes:
        if len(line) <= limits.import_line_bytes_max:
            return line if line.endswith(b"\n") else line + b"\n"
        self._refuse(line, "too_long", f"the row has more than {limits.import_line_bytes_max} bytes")
        return b"\n"

    def _quoted(self, first: bytes) -> bytes:
        """A CSV record whose first line ends inside quotes: go on to the line that closes them."""
        lines = [first]
        size = len(first)
        while size <= limits.import_line_bytes_max:
            line = self._read()
            if line is None:
                break
            lines.append(line)
            size += len(line)
            if line.count(b'"') & 1 and size <= limits.import_line_bytes_max:
                self.line += len(lines)
                record = b"".join(lines)
                return record if record.endswith(b"\n") else record + b"\n"
        self._ahead.extendleft(reversed(lines[1:]))
        self.line += 1
        self._refuse(first, "malformed", "a quoted text that begins in this row does not end")
        return b"\n"

    def _refuse(self, line: bytes, code: str, detail: str) -> None:
        raw = line[: limits.import_raw_bytes_max].decode(errors="replace").rstrip("\r\n")
        self._problems.append(Problem(self.line - 1, code, None, detail, raw))
