"""What goes into the event store and what comes out: appends, outcomes, recorded events, stored users."""

from datetime import datetime
from enum import IntEnum
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen.events.codec import Event
from denizen.sharding.ids import Bucket, Position, UserId
from denizen.users.login_names import LoginName
from denizen.users.state import User

ANY_VERSION = -1
NO_STREAM = 0


class NameAction(Struct, frozen=True):
    """One change of a login name in the bucket of its command; see `denizen.append` (SQL) for the actions."""

    action: str  # claim, reserve, confirm, leave, restore, release
    name: LoginName
    user_id: UserId
    reservation: UUID | None = None


class Append(Struct, frozen=True):
    """One command's effect on one stream: events, and in the same transaction the state and the login names.

    `expected` is the stream's version before: `NO_STREAM`, `ANY_VERSION` or an exact number. `state` is the fold
    after the events, for a user's stream. `key` and `fingerprint` make it idempotent across retries of the client;
    `command_id` makes it so across our own.
    """

    bucket: Bucket
    stream: UUID
    expected: int
    command_id: UUID
    events: tuple[Event, ...]
    actor: str
    correlation_id: UUID | None = None
    state: User | None = None
    names: tuple[NameAction, ...] = ()
    key: bytes | None = None
    fingerprint: bytes | None = None


class Result(IntEnum):
    """What became of an append."""

    DONE = 1
    REPEATED = 2
    MOVED = 3
    FENCED = 4
    VERSION_CONFLICT = 5
    NAME_TAKEN = 6
    NAME_LOST = 7
    KEY_REUSED = 8
    CANCELLED = 9


RESULTS = {result.name.lower(): result for result in Result}


class Outcome(Struct, frozen=True, gc=False):
    """The shard's answer to an append.

    Done or repeated: `stream` is at `version`, its last event at `sequence` of the bucket. Refused: `version` is the
    fact behind it (the shard's epoch, the actual version, the kind of the login name).
    """

    result: Result
    stream: UUID
    version: int
    sequence: int
    recorded_at: datetime


class StoredUser(Struct, frozen=True):
    """A user as its shard has it. `version` is that of the stream; times are those of the first and last event."""

    id: UserId
    version: int
    created_at: datetime
    updated_at: datetime
    user: User


class RecordedEvent(Struct, frozen=True, gc=False):
    """An event with its envelope."""

    position: Position
    stream: UUID
    version: int
    type: str
    schema: int
    recorded_at: datetime
    command_id: UUID
    actor: str
    correlation_id: UUID | None
    event: Event


class NameRecord(Struct, frozen=True):
    """Who has a login name, and whether a change of it is under way (`state` is not "held")."""

    user_id: UserId
    state: str
    reservation: UUID | None


encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(User).decode


def decode_state(document: bytes) -> User:
    """The state of a user from its stored document."""
    return _decode_state(document)
