"""What the parent of a verification and its workers say to each other; see processes/frames.py for how."""

from typing import Final

import msgspec
from msgspec import Struct

from denizen.bulk.verification.differences import Difference
from denizen.bulk.verification.fold import Elsewhere
from denizen.processes.frames import Trouble


class Plan(Struct, frozen=True, tag="plan"):
    """To a worker, once: the deployment, the snapshot to read on each shard, and which shard has each bucket there."""

    data: str
    snapshots: dict[str, str]
    owners: list[str]  # by bucket; "" if no shard has it


class Task(Struct, frozen=True, tag="task"):
    """To a worker: these buckets of this shard, a range without holes."""

    shard: str
    first: int
    last: int
    events: int


class Ready(Struct, frozen=True, tag="ready"):
    """From a worker: it has every snapshot."""


class Found(Struct, tag="found"):
    """From a worker: a task is done.

    `suspects` are names in other buckets that did not fit: another shard's snapshot may be a moment older or newer.
    `expected` and `held` count, by bucket, the names held for users of other buckets: by the users, and by the rows.
    """

    events: int
    users: int
    login_names: int
    unsettled: int
    differences: list[Difference]
    suspects: list[Elsewhere]
    expected: dict[int, int]
    held: dict[int, int]


decode_for_worker: Final = msgspec.msgpack.Decoder(Plan | Task).decode
decode_for_parent: Final = msgspec.msgpack.Decoder(Ready | Found | Trouble).decode
