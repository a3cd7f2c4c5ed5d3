"""Rows that a replay copies arrive as they were, whatever their types."""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from denizen.projections.copying import CopyData
from denizen.projections.replay.worker import connect_bulk
from denizen.projections.tables import Kind, Table
from denizen.testing.postgres import Database


class Everything(NamedTuple):
    """A column of each type, and each once more where it may be empty."""

    user_id: UUID
    text: str
    integer: int
    number: float
    truth: bool
    data: bytes
    moment: datetime
    document: dict[str, Any]
    text_or_none: str | None = None
    integer_or_none: int | None = None
    number_or_none: float | None = None
    truth_or_none: bool | None = None
    data_or_none: bytes | None = None
    moment_or_none: datetime | None = None
    document_or_none: dict[str, Any] | None = None
    id_or_none: UUID | None = None


TABLE = Table("everything", Everything, kind=Kind.LOG)
FULL = Everything(
    user_id=UUID(int=2**128 - 1),
    text="Zoë 山田 🙂\n",
    integer=-(2**63),
    number=-1.5e300,
    truth=True,
    data=b"\x00\xff",
    moment=datetime(1969, 7, 20, 20, 17, tzinfo=UTC),
    document={"a": [1, None, "ü"]},
    text_or_none="x" * 70_000,
    integer_or_none=2**63 - 1,
    number_or_none=float("inf"),
    truth_or_none=True,
    data_or_none=b"\xff" * 4,
    moment_or_none=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    document_or_none={"b": {}},
    id_or_none=UUID(int=7),
)
ROWS = [Everything(UUID(int=1), "", 0, 0.0, False, b"", datetime(2000, 1, 1, tzinfo=UTC), {}), FULL]


async def test_rows_of_every_type_arrive_as_they_were(read_database: Database) -> None:
    connection = await connect_bulk(read_database.connect_args)
    await connection.execute(TABLE.create(1))
    copy = CopyData(TABLE)
    copy.add(ROWS[:1])
    copy.add([])
    copy.add(ROWS[1:])
    await copy.send(connection, 1)
    found = await connection.fetch("select * from denizen_read.everything_v1 order by user_id")
    assert [tuple(row) for row in found] == ROWS
    await CopyData(TABLE).send(connection, 1)
    assert await connection.fetchval("select count(*) from denizen_read.everything_v1") == copy.rows == 2
    await connection.close()
