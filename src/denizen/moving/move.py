"""What is said about a move to the two servers concerned, and what they answer. Plain data, shared by those who decide
(`denizen.control`) and those who do (`denizen.moving`).
"""

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from denizen.sharding.ids import Bucket, Epoch, Sequence, ShardId


class Move(Struct, frozen=True):
    """One bucket on its way from `source` to `target`, as one attempt works on it.

    `attempt` is compared in every transaction, on both servers: a step whose attempt is lower than one that the server
    has seen for this move is refused. `epoch` is the bucket's in the map when the step was decided.
    """

    id: UUID
    attempt: int
    bucket: Bucket
    source: ShardId
    target: ShardId
    epoch: Epoch


class Prepared(Struct, frozen=True):
    """The checks passed; how much there is to copy, at the source's last word."""

    events: int
    bytes: int


class Copied(Struct, frozen=True):
    """How far a copy or a clean-up is: rows done, of about how many, and bytes."""

    rows: int
    rows_total: int
    bytes: int


class Head(Struct, frozen=True):
    """The last position of a bucket on a server, and the digest of its events."""

    sequence: Sequence
    digest: int


class Verdict(StrEnum):
    """Whether the target has exactly what the fenced source has. `UNKNOWN` is never taken for `EQUAL`."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class Verification(Struct, frozen=True):
    """The comparison under the fence; `differences` in words, a bounded number of them."""

    verdict: Verdict
    head: Head
    differences: tuple[str, ...] = ()
