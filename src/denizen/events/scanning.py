"""Reading whole buckets at once, as replays do: by binary COPY, decoded in one pass, grouped by stream.

A row of the query comes as COPY writes it: the number of its fields, then each as a length (-1: null) and a value. The
fields of fixed size come first, so that one `struct` takes them all; then data, actor, correlation id and, with the
first event of a user, the stream's secret (see sealing.py). Events of login names' streams count for the positions, but
bring no data.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from asyncpg.pgproto.pgproto import UUID as WireUUID  # the same as `uuid.UUID`, made ten times as fast
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from denizen.errors import Moved
from denizen.events.codec import LOGIN_NAME_EVENTS_FROM, Event, codec
from denizen.events.records import RecordedEvent
from denizen.events.sealing import SEALED, cipher_of, open_sealed
from denizen.invariants import InvariantBroken
from denizen.sharding.ids import Bucket, Position
from denizen.users.events import DataErased

_EVENTS: Final = f"""
    select bucket, sequence, version, type, schema, recorded_at, stream, command_id,
           case when type <= {LOGIN_NAME_EVENTS_FROM} then data end, actor, correlation_id,
           case when version = 1 and type <= {LOGIN_NAME_EVENTS_FROM} then secret end
    from denizen.events where bucket = any ($1::smallint[]) order by bucket, sequence
"""  # noqa: S608 - only constants
_OWNED: Final = "select count(*) from denizen.buckets where bucket = any ($1) and state in ('open', 'fenced')"
# Lengths are passed over, but for that of the data: 2 bytes number of fields, then 4 bytes before each value.
_FIXED: Final = struct.Struct(">2x 4xh 4xq 4xi 4xh 4xh 4xq 4x16s 4x16s i")
_LENGTH: Final = struct.Struct(">i")
_LENGTHS: Final = struct.Struct(">ii")
_HEADER_BYTES: Final = 19
_TRAILER_BYTES: Final = 2
_ERASED: Final = DataErased()
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts microseconds from then
_MICROSECOND: Final = timedelta(microseconds=1)

_Stream = tuple[UUID, list[RecordedEvent], AESGCM | None]  # what opens it comes with its first event


class History(Struct):
    """All events of a bucket: how many there are, and those of users by stream, in order."""

    bucket: Bucket
    events: int
    streams: dict[UUID, list[RecordedEvent]]


async def copy_buckets(connection: asyncpg.Connection, buckets: Sequence[Bucket]) -> bytes:
    """All events of these buckets in one snapshot, for `histories`. `Moved` if one of them is not here any more."""
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    async with connection.transaction(isolation="repeatable_read", readonly=True):
        if await connection.fetchval(_OWNED, buckets) != len(buckets):
            raise Moved("a bucket is not on this shard any more", bucket=buckets[0])
        await connection.copy_from_query(_EVENTS, buckets, output=take, format="binary")
    return b"".join(chunks)


def histories(copied: bytes) -> Iterator[History]:
    """The buckets that have events, one after the other; take one before asking for the next.

    Raises `UnknownEvent` for an event that this program does not know. This is the inner loop of every replay: names
    are local, calls are few, and a bucket's events can be dropped while they are still in the processor's cache.
    """
    at, end = _HEADER_BYTES, len(copied) - _TRAILER_BYTES
    unpack, fixed_bytes, length, lengths = _FIXED.unpack_from, _FIXED.size, _LENGTH.unpack_from, _LENGTHS.unpack_from
    decoders, actors = _Known(_decoder), _Known(_actor)
    bucket, last, streams = Bucket(-1), 0, dict[bytes, _Stream]()
    while at < end:
        here, sequence, version, number, schema, recorded_at, stream, command_id, data_bytes = unpack(copied, at)
        data_at = at + fixed_bytes
        data_end = data_at if data_bytes < 0 else data_at + data_bytes
        actor_end = data_end + 4 + length(copied, data_end)[0]
        correlation, secret_bytes = lengths(copied, actor_end)
        secret_at = actor_end + 8
        if correlation >= 0:
            secret_at += 16
            (secret_bytes,) = length(copied, secret_at - 4)
        at = secret_at if secret_bytes < 0 else secret_at + secret_bytes
        if here != bucket:
            if last:
                yield History(bucket, last, _by_id(streams))
            bucket, last, streams = here, 0, {}
        last += 1
        if sequence != last:
            raise InvariantBroken(f"a bucket is read without holes: bucket={bucket}, {last} is {sequence}")
        if data_bytes < 0:
            continue
        known = streams.get(stream)
        if known is None:
            cipher = None if secret_bytes < 0 else cipher_of(stream, copied[secret_at:at])
            known = streams[stream] = WireUUID(stream), [], cipher
        identifier, events, cipher = known
        name, decode = decoders[number, schema]
        data = copied[data_at:data_end]
        if data[:1] != SEALED:
            event = decode(data)
        elif cipher is not None:
            event = decode(open_sealed(cipher, stream, version, number, schema, data))
        else:
            event = _ERASED
        events.append(
            RecordedEvent(
                Position(here, sequence),
                identifier,
                version,
                name,
                schema,
                _EPOCH + recorded_at * _MICROSECOND,
                WireUUID(command_id),
                actors[copied[data_end + 4 : actor_end]],
                None if correlation < 0 else WireUUID(copied[actor_end + 4 : secret_at - 4]),
                event,
            )
        )
    if last:
        yield History(bucket, last, _by_id(streams))


class _Known(dict[Any, Any]):
    """A dictionary that makes what it is asked for the first time."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        made = self[key] = self._make(key)
        return made


def _by_id(streams: dict[bytes, _Stream]) -> dict[UUID, list[RecordedEvent]]:
    return {identifier: events for identifier, events, _ in streams.values()}


def _decoder(kind: tuple[int, int]) -> tuple[str, Callable[[bytes], Event]]:
    return codec.name(kind[0]), codec.decoder(*kind)


def _actor(text: bytes) -> str:
    return text.decode()
