"""What comes with a command, and what a write answers."""

from uuid import UUID

from msgspec import Struct

from denizen.events.records import StoredUser
from denizen.sharding.ids import Position


class Context(Struct, frozen=True):
    """Who asks, and under which idempotency key.

    `actor` goes into each event (who). `idempotency_key` is already scoped to its owner; `fingerprint` is a digest of
    the whole request, so that a key used for another request is noticed.
    """

    actor: str
    correlation_id: UUID | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None


class Written(Struct, frozen=True):
    """A write that is durable. `replayed`: it was done before, under the same idempotency key; `user` is of then."""

    user: StoredUser
    position: Position
    replayed: bool = False
