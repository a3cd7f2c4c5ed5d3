"""What parent and workers say to each other; see processes/frames.py for how."""

from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen import limits
from denizen.processes.frames import Trouble
from denizen.users.rejections import Rejected


class Plan(Struct, frozen=True, tag="plan"):
    """To a worker, once: everything about the import. `columns`: the field of each CSV column, None to ignore it."""

    data: str
    import_id: UUID
    key: bytes
    started_ms: int
    csv: bool
    columns: list[str | None]
    delimiter: str
    on_conflict: str
    dry_run: bool
    resumed: bool
    round_lines: int
    scratch: str


class Window(Struct, frozen=True, tag="window"):
    """To a worker: whole lines of the input. `first_line` counts from 1."""

    first_line: int
    lines: int
    data: bytes


class Enough(Struct, frozen=True, tag="enough"):
    """To a worker: begin no other window; finish those that are begun."""


class Ready(Struct, frozen=True, tag="ready"):
    """From a worker: it reached every shard."""


class Fault(Struct, frozen=True, gc=False):
    """One of several things wrong with a row."""

    field: str | None
    code: str
    detail: str


class Problem(Struct, frozen=True, omit_defaults=True, gc=False):
    """A row that was not accepted; `raw` is its beginning. `conflict`: another user has a login name of it.

    `errors`: all its faults, where there are several; the first one is that of `code`, `field` and `detail`.
    """

    line: int
    code: str
    field: str | None
    detail: str
    raw: str
    conflict: bool = False
    errors: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, line: int, rejected: Rejected, raw: bytes, *, conflict: bool = False) -> "Problem":
        """The problem of the row `raw`, which was rejected."""
        text = raw[: limits.import_raw_bytes_max].decode(errors="replace")
        errors = [Fault(fault.field, fault.code, fault.detail) for fault in rejected.faults] if rejected.also else ()
        return cls(line, rejected.code, rejected.field, rejected.detail, text, conflict, tuple(errors))


class Report(Struct, tag="report"):
    """From a worker: a window is done, durably. The counts are of rows; blank lines are none."""

    first_line: int
    lines: int
    rows: int = 0
    imported: int = 0
    before: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0
    problems: list[Problem] = []


class Left(Struct, frozen=True, tag="left"):
    """From a worker: of a window nothing was done."""


FromWorker = Ready | Report | Left | Trouble

decode_for_worker: Final = msgspec.msgpack.Decoder(Plan | Window | Enough).decode
decode_for_parent: Final = msgspec.msgpack.Decoder(FromWorker).decode
