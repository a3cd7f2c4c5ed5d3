"""What a mover and its worker processes say to each other; see processes/frames.py for how."""

from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen.events.keyring import SharedKeyring
from denizen.moving.move import Move
from denizen.processes.frames import Trouble


class Plan(Struct, frozen=True, tag="plan"):
    """To a worker, once: how this deployment places login names, and the keys that open its events."""

    hash_seed: int
    kinds: tuple[int, ...]
    keyring: SharedKeyring


class SliceTask(Struct, frozen=True, tag="slice"):
    """To a worker: copy the next events of this move, at most so many. The arguments are those of `asyncpg.connect`."""

    move: Move
    source: dict[str, Any]
    target: dict[str, Any]
    events_max: int
    tell: bool = False  # which users and login names the slice touches


class Ready(Struct, frozen=True, tag="ready"):
    """From a worker: it took the plan."""


class SliceDone(Struct, frozen=True, tag="done"):
    """From a worker: the target was at `after` and is at `head`; the source was at `source_head` afterwards."""

    after: int
    head: int
    source_head: int
    bytes: int
    users: tuple[UUID, ...] = ()
    names: tuple[tuple[int, str], ...] = ()


class SliceFailed(Struct, frozen=True, tag="failed"):
    """From a worker: the slice was not copied, or it is not known; it can go on with another."""

    code: str
    detail: str


decode_for_worker: Final = msgspec.msgpack.Decoder(Plan | SliceTask).decode
decode_for_mover: Final = msgspec.msgpack.Decoder(Ready | SliceDone | SliceFailed | Trouble).decode
