"""Rows as a binary COPY takes them, encoded as soon as they are made: a replay keeps some bytes of each bucket, instead
of all the small objects of a part, which no cache of a processor holds.

    signature, flags (19 bytes), rows, -1 (2 bytes)      a row: number of fields (2), then each after its length (4)

A field without a value has the length -1. PostgreSQL's manual describes the format under COPY; the values are what each
type's `…send` function gives. See `denizen.events.scanning` for the other direction.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from struct import Struct
from typing import Any, Final
from uuid import UUID

import asyncpg

from denizen.projections.database import encode_jsonb
from denizen.projections.projection import Row
from denizen.projections.tables import SCHEMA, Table

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_count: Final = Struct(">h").pack
_length: Final = Struct(">i").pack
_integer: Final = Struct(">iq").pack
_float: Final = Struct(">id").pack
_boolean: Final = Struct(">i?").pack
_UUID_LENGTH: Final = _length(16)


class CopyData:
    """Rows that are going to be inserted into a table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._encoders = [_ENCODERS[column.type] for column in table.columns]
        self._fields = _count(len(table.columns))
        self._chunks: list[bytes] = []
        self.rows = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Encode some more, column by column."""
        if not rows:
            return
        columns = [encode(values) for encode, values in zip(self._encoders, zip(*rows, strict=True), strict=True)]
        self._chunks.append(b"".join(chain.from_iterable(zip(repeat(self._fields), *columns, strict=False))))
        self.rows += len(rows)

    async def send(self, connection: asyncpg.Connection, version: int) -> None:
        """Insert them into this version of the table, in the caller's transaction."""
        if not self.rows:
            return
        await connection.copy_to_table(
            self._table.at(version),
            schema_name=SCHEMA,
            columns=self._table.names,
            source=self._content(),
            format="binary",
        )

    async def _content(self) -> AsyncIterator[bytes]:
        for chunk in (_HEADER, *self._chunks, _TRAILER):
            yield chunk


def _texts(values: Iterable[str | None]) -> list[bytes]:
    return _byteas([None if value is None else value.encode() for value in values])


def _byteas(values: Iterable[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _length(len(value)) + value for value in values]


def _integers(values: Iterable[int | None]) -> list[bytes]:
    return [_NULL if value is None else _integer(8, value) for value in values]


def _floats(values: Iterable[float | None]) -> list[bytes]:
    return [_NULL if value is None else _float(8, value) for value in values]


def _booleans(values: Iterable[bool | None]) -> list[bytes]:
    return [_NULL if value is None else _boolean(1, value) for value in values]


def _uuids(values: Iterable[UUID | None]) -> list[bytes]:
    return [_NULL if value is None else _UUID_LENGTH + value.bytes for value in values]


def _times(values: Iterable[datetime | None]) -> list[bytes]:
    return [_NULL if value is None else _integer(8, (value - _EPOCH) // _MICROSECOND) for value in values]


def _documents(values: Iterable[Any]) -> list[bytes]:
    return _byteas([None if value is None else encode_jsonb(value) for value in values])


_ENCODERS: Final[dict[str, Callable[[Iterable[Any]], list[bytes]]]] = {
    "text": _texts,
    "bytea": _byteas,
    "bigint": _integers,
    "double precision": _floats,
    "boolean": _booleans,
    "uuid": _uuids,
    "timestamptz": _times,
    "jsonb": _documents,
}
