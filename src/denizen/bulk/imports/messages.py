"""What parent and workers say to each other: frames of MessagePack over pipes, four bytes of length before each."""

import asyncio
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen import limits


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


class Ready(Struct, frozen=True, tag="ready"):
    """From a worker: it reached every shard."""


class Problem(Struct, frozen=True, omit_defaults=True, gc=False):
    """A row that was not accepted; `raw` is its beginning. `conflict`: another user has a login name of it."""

    line: int
    code: str
    field: str | None
    detail: str
    raw: str
    conflict: bool = False


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


class Trouble(Struct, frozen=True, tag="trouble"):
    """From a worker, its last word: why it cannot go on."""

    code: str
    detail: str


ToWorker = Plan | Window
FromWorker = Ready | Report | Trouble

encode: Final = msgspec.msgpack.Encoder().encode
decode_for_worker: Final = msgspec.msgpack.Decoder(ToWorker).decode
decode_for_parent: Final = msgspec.msgpack.Decoder(FromWorker).decode


def frame(message: ToWorker | FromWorker) -> bytes:
    """The message as it goes over the pipe."""
    content = encode(message)
    return len(content).to_bytes(4, "big") + content


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's content, None at the end of the pipe."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > limits.import_frame_bytes_max:
            raise ValueError(f"a frame of {size} bytes")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
