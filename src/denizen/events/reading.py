"""Reading: users and login names in groups, streams and buckets in pages.

Look-ups that arrive together share one query (see lanes.py). A read tells from the bucket's own row, in the same
snapshot, whether this shard owns the bucket: what a shard merely still holds after a move is never shown.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from msgspec.msgpack import Encoder
from msgspec.structs import replace

from denizen import limits
from denizen.errors import DenizenError, Moved, Unavailable
from denizen.events.codec import RESERVED, Event, codec
from denizen.events.records import NameRecord, RecordedEvent, StoredUser, decode_state
from denizen.events.sealing import open_name, opened
from denizen.sharding.ids import Bucket, Position, UserId, bucket_of
from denizen.sharding.ids import Sequence as EventSequence
from denizen.users.events import DataErased
from denizen.users.login_names import LoginName

_USERS: Final = """
    select b.state, u.version, u.created_at, u.updated_at, u.document
    from unnest($1::smallint[], $2::uuid[]) with ordinality as r (bucket, id, ordinal)
    left join denizen.buckets b on b.bucket = r.bucket and b.state in ('open', 'fenced')
    left join denizen.users u on u.bucket = r.bucket and u.id = r.id
    order by r.ordinal
"""
_NAMES: Final = """
    select b.state, l.user_id, coalesce(s.state, 'held') as held, s.reservation
    from unnest($1::smallint[], $2::smallint[], $3::text[]) with ordinality as r (bucket, kind, value, ordinal)
    left join denizen.buckets b on b.bucket = r.bucket and b.state in ('open', 'fenced')
    left join denizen.login_names l on l.bucket = r.bucket and l.kind = r.kind and l.value = r.value
    left join denizen.login_names_unsettled s on s.bucket = l.bucket and s.kind = l.kind and s.value = l.value
    order by r.ordinal
"""
# The secret of the stream of an event `e` (see sealing.py), whichever row has it: a user's first, a login name's own.
_SEALED_BY: Final = """
    case when e.version = 1 or e.type > 100 then e.secret
         else (select f.secret from denizen.events f where f.stream = e.stream and f.version = 1) end as secret
"""
# The columns of an event `e` that `event_of` takes.
EVENT_COLUMNS: Final = f"""
    e.bucket, e.sequence, e.stream, e.version, e.type, e.schema, e.recorded_at, e.command_id, e.actor, e.correlation_id,
    e.data, {_SEALED_BY}
"""
# The same as the bus has them: ids as bytes, times in microseconds since 1970. They are decoded in half the time.
RAW_EVENT_COLUMNS: Final = f"""
    e.bucket, e.sequence, uuid_send(e.stream), e.version, e.type, e.schema,
    (date_part('epoch', e.recorded_at) * 1000000)::bigint, uuid_send(e.command_id), e.actor,
    uuid_send(e.correlation_id), e.data, {_SEALED_BY}
"""
_STREAM: Final = f"""
    select {EVENT_COLUMNS} from denizen.events e
    where stream = $1 and version > $2 and version <= $3 and recorded_at <= $4 order by version limit $5
"""  # noqa: S608 - only constants
_BUCKET: Final = f"""
    select {EVENT_COLUMNS} from denizen.events e where bucket = $1 and sequence > $2 order by sequence limit $3
"""  # noqa: S608 - only constants
_PAGE: Final = """
    select u.id, u.version, u.created_at, u.updated_at, u.document
    from denizen.users u join denizen.buckets b on b.bucket = u.bucket and b.state in ('open', 'fenced')
    where (u.bucket, u.id) > ($1, $2) and u.status < 3 order by u.bucket, u.id limit $3
"""
_OWNED: Final = "select exists (select from denizen.buckets where bucket = $1 and state in ('open', 'fenced'))"

_encode = Encoder().encode
_VALUE: Final = _encode("value")
VERSION_MAX: Final = 2**31 - 1
END_OF_TIME: Final = datetime.fromisoformat("9999-12-31T00:00:00+00:00")


class _LookUp:
    group_max = limits.read_group_keys_max
    deadline_s = limits.read_deadline_s

    def keys(self, request: object) -> tuple[object, ...]:
        """Reads never disturb each other."""
        return ()

    def doubt(self, cause: BaseException) -> DenizenError:
        """A read changes nothing."""
        return Unavailable("the shard does not answer")


class UserLookUp(_LookUp):
    """Users by id; None where there is none. See `lanes.Work`."""

    async def perform(
        self, connection: asyncpg.Connection, requests: Sequence[UserId]
    ) -> list[StoredUser | DenizenError | None]:
        """One query for the group."""
        rows = await connection.fetch(_USERS, [bucket_of(request) for request in requests], list(requests))
        return [_user(identifier, row) for identifier, row in zip(requests, rows, strict=True)]


class NameLookUp(_LookUp):
    """Login names with their buckets; None where nobody has one. See `lanes.Work`."""

    async def perform(
        self, connection: asyncpg.Connection, requests: Sequence[tuple[Bucket, LoginName]]
    ) -> list[NameRecord | DenizenError | None]:
        """One query for the group."""
        buckets, names = zip(*requests, strict=True)
        rows = await connection.fetch(
            _NAMES, buckets, [name.kind.value for name in names], [name.value for name in names]
        )
        return [_name(bucket, row) for bucket, row in zip(buckets, rows, strict=True)]


async def require_bucket(connection: asyncpg.Connection, bucket: Bucket) -> None:
    """`Moved` unless this shard serves the bucket. Ask after a read: then what was read was current."""
    if not await connection.fetchval(_OWNED, bucket):
        raise _moved(bucket)


async def read_stream(
    connection: asyncpg.Connection,
    stream: UUID,
    *,
    after_version: int = 0,
    to_version: int = VERSION_MAX,
    to_time: datetime = END_OF_TIME,
    limit: int,
) -> list[RecordedEvent]:
    """The events of a stream in order, at most `limit`."""
    return [event_of(row) for row in await connection.fetch(_STREAM, stream, after_version, to_version, to_time, limit)]


async def read_bucket(connection: asyncpg.Connection, bucket: Bucket, *, after: int, limit: int) -> list[RecordedEvent]:
    """The events of a bucket in order after the sequence `after`, at most `limit`."""
    return [event_of(row) for row in await connection.fetch(_BUCKET, bucket, after, limit)]


async def read_page(connection: asyncpg.Connection, after: tuple[int, UUID], limit: int) -> list[StoredUser]:
    """This shard's users that are not deleted, in order of (bucket, id), after that pair, at most `limit`."""
    return [
        StoredUser(UserId(identifier), version, created_at, updated_at, decode_state(document))
        for identifier, version, created_at, updated_at, document in await connection.fetch(_PAGE, *after, limit)
    ]


def event_of(row: asyncpg.Record) -> RecordedEvent:
    """The event in a row of `events`."""
    bucket, sequence, stream, version, number, schema, recorded_at, command, actor, correlation_id, data, secret = row
    return RecordedEvent(  # in the order of its fields: replays make hundreds of thousands of them a second
        Position(Bucket(bucket), EventSequence(sequence)),
        stream,
        version,
        codec.name(number),
        schema,
        recorded_at,
        command,
        actor,
        correlation_id,
        decoded(stream, version, number, schema, data, secret),
    )


def decoded(  # noqa: PLR0917 - the columns of a row that its content is made of
    stream: UUID, version: int, number: int, schema: int, data: bytes, secret: bytes | None
) -> Event:
    """The event that was stored so; `DataErased` if its data were destroyed. `CannotOpen`, `UnknownEvent`."""
    document = opened(stream.bytes, version, number, schema, data, secret)
    if document is None:
        return DataErased()
    event = codec.decode(number, schema, document)
    if number == RESERVED and secret is not None:
        return replace(event, value=open_name(stream.bytes, secret))
    return event


def document_of(  # noqa: PLR0917 - as of `decoded`
    stream: bytes, version: int, number: int, schema: int, data: bytes, secret: bytes | None
) -> bytes | None:
    """The document of the event that was stored so, as the bus has it; None if it was destroyed."""
    document = opened(stream, version, number, schema, data, secret)
    if document is None or number != RESERVED or secret is None:
        return document
    # The name stands beside the document: one more pair at the end of the map, which has few enough for its first byte.
    return bytes((document[0] + 1,)) + document[1:] + _VALUE + _encode(open_name(stream, secret))


def _user(identifier: UserId, row: asyncpg.Record) -> StoredUser | DenizenError | None:
    state, version, created_at, updated_at, document = row
    if state is None:
        return _moved(bucket_of(identifier))
    if document is None:
        return None
    return StoredUser(identifier, version, created_at, updated_at, decode_state(document))


def _name(bucket: Bucket, row: asyncpg.Record) -> NameRecord | DenizenError | None:
    state, user_id, held, reservation = row
    if state is None:
        return _moved(bucket)
    return None if user_id is None else NameRecord(UserId(user_id), held, reservation)


def _moved(bucket: Bucket) -> Moved:
    return Moved(f"bucket {bucket} is not on this shard", bucket=bucket)
