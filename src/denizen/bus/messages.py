"""The messages of the bus, as docs/bus.md describes them: MessagePack, with a version.

An event goes as its shard stored it, but opened (see events/sealing.py): under the schema it was written with, its data
as a map inside the message, or nil if they were destroyed meanwhile. New
keys may be added to a map and new elements to the end of an event without a new version; readers pass over them. A
message of a version that we do not know is not read: what it holds is read from PostgreSQL.
"""

from collections.abc import Sequence as Rows
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from asyncpg.pgproto.pgproto import UUID as WireUUID  # the same as `uuid.UUID`, made ten times as fast
from msgspec import Meta, Raw, Struct
from msgspec.msgpack import Decoder, Encoder

from denizen.events.codec import NAMES, UnknownEvent, codec
from denizen.events.reading import document_of
from denizen.events.records import RecordedEvent
from denizen.sharding.ids import Bucket, Position, Sequence, ShardId
from denizen.users.events import DataErased

VERSION: Final = 1
NIL: Final = b"\xc0"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS: Final = {name: number for number, name in NAMES.items()}
_ENVELOPE_BYTES: Final = 150  # of an event without its data and actor, about


Id = Annotated[bytes, Meta(min_length=16, max_length=16)]  # a UUID


class BadMessage(Exception):
    """A message that this program cannot read: damaged, or of another version."""


class WireEvent(Struct, frozen=True, array_like=True, gc=False):
    """An event in a message. Ids are bytes, `recorded_at` microseconds since 1970, `data` the document, MessagePack."""

    bucket: Bucket
    sequence: int
    stream: Id
    version: int
    type: str
    schema: int
    recorded_at: int
    command_id: Id
    actor: str
    correlation_id: Id | None
    data: Raw

    def record(self) -> RecordedEvent:
        """The event; `UnknownEvent` if its type or schema is newer than this program."""
        number = _NUMBERS.get(self.type)
        if number is None:
            raise UnknownEvent(f"event type {self.type} is unknown to this version: upgrade it", type=self.type)
        data = bytes(self.data)
        event = DataErased() if data == NIL else codec.decode(number, self.schema, data)
        return RecordedEvent(
            Position(self.bucket, Sequence(self.sequence)),
            WireUUID(self.stream),
            self.version,
            self.type,
            self.schema,
            _moment(self.recorded_at),
            WireUUID(self.command_id),
            self.actor,
            None if self.correlation_id is None else WireUUID(self.correlation_id),
            event,
        )


class EventsMessage(Struct, frozen=True):
    """Events of one shard: those of a bucket are in order, without holes."""

    v: int
    shard: str
    events: list[WireEvent]


class HeadsMessage(Struct, frozen=True):
    """How far the buckets of a shard are, and how far they are published; buckets without events are left out.

    `published` has only the buckets that are not published up to their head. `stream` and `sequence` say which events
    stream is meant, and which of its messages was this shard's last: with them a relay finds its place again.
    """

    v: int
    shard: str
    at: int  # microseconds since 1970, by the relay's clock
    heads: dict[Bucket, int]
    published: dict[Bucket, int]
    stream: str
    sequence: int

    def published_of(self) -> dict[Bucket, int]:
        """How far each bucket is published."""
        return self.heads | self.published


class Hint(Struct, frozen=True, array_like=True):
    """The newest sequences that a gateway has just committed, and how many writes went together, on the average."""

    heads: dict[ShardId, dict[Bucket, int]]
    group: float


class _Version(Struct):
    v: int


_encode = Encoder().encode
_version = Decoder(_Version).decode
_events = Decoder(EventsMessage).decode
_heads = Decoder(HeadsMessage).decode
_hint = Decoder(Hint).decode


def encode_events(shard: ShardId, rows: Rows[Rows[Any]]) -> bytes:
    """A message of these rows of `tailing.read_raw_after`."""
    return _encode({"v": VERSION, "shard": shard, "events": [_wire(row) for row in rows]})


def _wire(row: Rows[Any]) -> tuple[Any, ...]:
    bucket, sequence, stream, version, number, schema, at, command_id, actor, correlation_id, stored, secret = row
    name = NAMES.get(number) or codec.name(number)
    data = Raw(document_of(stream, version, number, schema, stored, secret) or NIL)
    return bucket, sequence, stream, version, name, schema, at, command_id, actor, correlation_id, data


# Events of one transaction have one time, so a few times come again and again.
@lru_cache(maxsize=1024)
def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def split_rows(rows: Rows[Rows[Any]], bytes_max: int) -> list[Rows[Rows[Any]]]:
    """The rows in order, in parts whose messages have about `bytes_max` at most; a row alone may have more."""
    parts: list[Rows[Rows[Any]]] = []
    begin = size = 0
    for index, row in enumerate(rows):
        bytes_ = _ENVELOPE_BYTES + len(row[8]) + len(row[10])
        if size + bytes_ > bytes_max and index > begin:
            parts.append(rows[begin:index])
            begin, size = index, 0
        size += bytes_
    if begin < len(rows):
        parts.append(rows[begin:])
    return parts


def decode_events(payload: bytes) -> EventsMessage:
    """The events in a message; `BadMessage` if it cannot be read."""
    message: EventsMessage = _checked(payload, _events)
    return message


def encode_heads(message: HeadsMessage) -> bytes:
    """A heads message."""
    return _encode(message)


def decode_heads(payload: bytes) -> HeadsMessage:
    """The heads in a message; `BadMessage` if it cannot be read."""
    message: HeadsMessage = _checked(payload, _heads)
    return message


def encode_hint(hint: Hint) -> bytes:
    """A hint's message."""
    return _encode(hint)


def decode_hint(payload: bytes) -> Hint:
    """The hint in a message; `BadMessage` if it cannot be read."""
    try:
        return _hint(payload)
    except msgspec.DecodeError as error:
        raise BadMessage(str(error)) from error


def _checked(payload: bytes, decode: Any) -> Any:
    try:
        version = _version(payload).v
        if version != VERSION:
            raise BadMessage(f"version {version}, this program knows {VERSION}")
        return decode(payload)
    except msgspec.DecodeError as error:
        raise BadMessage(str(error)) from error
