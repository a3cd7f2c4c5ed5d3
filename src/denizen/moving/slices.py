"""One slice of a copy: the next events of a bucket, from the source as they are, and what they fold to.

A slice is one transaction on the target. The events pass through as binary COPY gives them, in order, all columns; then
the target's own copy of them is read, folded, and applied (0003_moves.sql). So the target's head says exactly what is
there, wherever a copy was broken off, and nothing is ever done twice.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from denizen import limits
from denizen.events.codec import LOGIN_NAME_EVENTS_FROM, codec
from denizen.events.reading import decoded
from denizen.events.records import decode_state
from denizen.events.sealing import open_name
from denizen.moving.folding import Fold, FoldedUser, Rows
from denizen.moving.messages import SliceDone
from denizen.moving.move import Move
from denizen.moving.servers import meaning, transaction
from denizen.sharding.names_of import LoginNamesOf

POSITION: Final = "select head, keys_since from denizen.move_position($1, $2, $3)"
_AHEAD: Final = """
    select b.head, exists (
        select from denizen.idempotency i where i.bucket = b.bucket and i.recorded_at >= $2::text::timestamptz
    ) from denizen.buckets b where b.bucket = $1
"""
_HEAD: Final = "select head from denizen.buckets where bucket = $1"
# With the secret of the user's stream, or that which holds the login name (see events/sealing.py).
_FRESH: Final = """
    select e.stream, e.version, e.type, e.schema, e.recorded_at, e.data, case
        when e.version = 1 then e.secret
        when e.type < 100 then (select f.secret from denizen.events f where f.stream = e.stream and f.version = 1)
        else (select f.secret from denizen.events f
              where f.stream = e.stream and f.version <= e.version and f.type = 101
              order by f.version desc limit 1) end as secret
    from denizen.events e where e.bucket = $1 and e.sequence > $2 order by e.sequence
"""
_DESTROY: Final = "select denizen.destroy_secrets($1, $2)"
_BEFORE: Final = """
    select id, version, created_at, updated_at, document from denizen.users where bucket = $1 and id = any ($2::uuid[])
"""
_APPLY: Final = "select denizen.move_apply($1, $2, $3, $4, $5, $6, $7, $8)"
_COLUMNS: Final = """
    select attname from pg_attribute
    where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum
"""
_FORGET_KEYS: Final = "delete from denizen.idempotency where bucket = $1 and recorded_at >= $2::text::timestamptz"


class Slicer:
    """Copies slices; holds no state but how login names are placed."""

    def __init__(self, login_names_of: LoginNamesOf) -> None:
        self._login_names_of = login_names_of

    async def copy(
        self, source: asyncpg.Connection, target: asyncpg.Connection, move: Move, events_max: int, *, tell: bool = False
    ) -> SliceDone:
        """Copy the next slice; with `tell`, say what it touches. Errors as `DenizenError`."""
        touched = Rows([], [], [], [])
        with meaning(move.target):
            async with transaction(target):
                after, keys_since = await target.fetchrow(POSITION, move.id, move.attempt, move.bucket)
                with meaning(move.source):
                    ahead, keys = await source.fetchrow(_AHEAD, move.bucket, keys_since) or (0, False)
                rows = size = 0
                if ahead > after:
                    where = f"bucket = {int(move.bucket)} and sequence > {after} and sequence <= {after + events_max}"
                    rows, size = await _pass_through(source, target, move, "events", f"{where} order by sequence")
                if rows:
                    touched = await self.take_up(target, move.bucket, after, after + rows)
                if keys and rows < events_max:
                    await target.execute(_FORGET_KEYS, move.bucket, keys_since)
                    young = f"bucket = {int(move.bucket)} and recorded_at >= '{keys_since}'"
                    await _pass_through(source, target, move, "idempotency", young)
        with meaning(move.source):
            source_head = await source.fetchval(_HEAD, move.bucket) or 0
        done = SliceDone(after, after + rows, source_head, size)
        return replace(done, users=tuple(touched.user_ids()), names=tuple(touched.name_keys())) if tell else done

    async def take_up(self, target: asyncpg.Connection, bucket: int, after: int, head: int) -> Rows:
        """Fold the target's events after `after`, which must reach `head` without holes, and write what they give."""
        events = await target.fetch(_FRESH, bucket, after)
        fold = Fold(bucket, self._login_names_of, await _before(target, bucket, events))
        names: dict[bytes, str] = {}  # opened once: their events come together
        for stream, version, number, schema, recorded_at, data, secret in events:
            if number <= LOGIN_NAME_EVENTS_FROM:
                event = decoded(stream, version, number, schema, data, secret)
                fold.event(stream, version, number, recorded_at, event, None)
                continue
            name = None if secret is None else names.get(secret) or open_name(stream.bytes, secret)
            if secret is not None and name is not None:
                names[secret] = name
            fold.event(stream, version, number, recorded_at, codec.decode(number, schema, data), name)
        rows = fold.rows()
        gone = rows.gone if after else []
        await target.execute(
            _APPLY,
            bucket,
            after,
            head,
            rows.users,
            [kind for kind, _ in gone],
            [value for _, value in gone],
            rows.names,
            rows.unsettled,
        )
        await target.execute(_DESTROY, bucket, after)
        return rows


async def _before(target: asyncpg.Connection, bucket: int, events: list[Any]) -> dict[UUID, FoldedUser]:
    """The rows of the users that these events change, but do not begin."""
    begun: set[UUID] = set()
    earlier: set[UUID] = set()
    for stream, version, number, *_ in events:
        if number < LOGIN_NAME_EVENTS_FROM:
            if version == 1:
                begun.add(stream)
            elif stream not in begun:
                earlier.add(stream)
    if not earlier:
        return {}
    return {
        row[0]: FoldedUser(decode_state(row[4]), row[1], row[2], row[3])
        for row in await target.fetch(_BEFORE, bucket, list(earlier))
    }


async def _pass_through(
    source: asyncpg.Connection, target: asyncpg.Connection, move: Move, table: str, which: str
) -> tuple[int, int]:
    """Copy rows of a table as they are, through a bounded buffer; how many rows and bytes."""
    columns = [row[0] for row in await target.fetch(_COLUMNS, f"denizen.{table}")]
    query = f"select {', '.join(columns)} from denizen.{table} where {which}"  # noqa: S608 - names of the catalogue, numbers
    pipe = _Pipe()

    async def read() -> None:
        try:
            with meaning(move.source):
                await source.copy_from_query(query, output=pipe.put, format="binary")
        except Exception as error:  # noqa: BLE001 - the writer raises it
            await pipe.end(error)
        else:
            await pipe.end()

    reading = asyncio.create_task(read(), name="read of a slice")
    try:
        status = await target.copy_to_table(
            table, schema_name="denizen", columns=columns, source=pipe.chunks(), format="binary"
        )
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return int(status.split()[1]), pipe.bytes


class _Pipe:
    """Chunks on their way from one server to the other: a few at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(limits.move_buffer_chunks_max)
        self.bytes = 0

    async def put(self, chunk: bytes) -> None:
        """The next chunk; waits for room."""
        self.bytes += len(chunk)
        await self._queue.put(chunk)

    async def end(self, error: Exception | None = None) -> None:
        """No more come; because of an error, if there is one."""
        await self._queue.put(error)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks to the end; the error, if it ended with one."""
        while (chunk := await self._queue.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
