"""The tables of a projection, declared as named tuples.

    class PlanRow(NamedTuple):
        user_id: UUID
        plan: str
        since: datetime | None

    Table("plans", PlanRow, indexes=("(plan, user_id)",))

The statements that a table needs are made here, from the declaration and nothing else: no value ever becomes part of a
statement, and names are checked to be plain words. In the database the table of version 2 is `plans_v2`; the view
`plans` shows the version that is live.
"""

import re
import types
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from msgspec import Struct

from denizen.errors import BadConfiguration

SCHEMA: Final = "denizen_read"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TYPES: Final[dict[Any, str]] = {
    str: "text",
    int: "bigint",
    float: "double precision",
    bool: "boolean",
    bytes: "bytea",
    UUID: "uuid",
    datetime: "timestamptz",
    dict: "jsonb",
}


class Kind(Enum):
    """What a table's rows are."""

    STATE = "state"  # one row for each user, replaced as a whole
    DERIVED = "derived"  # any number of rows for each user, made from its state row
    LOG = "log"  # rows that are only ever added
    COUNT = "count"  # numbers that are only ever added to, by key


class Column(Struct, frozen=True):
    """A column and its PostgreSQL type."""

    name: str
    type: str
    null: bool


class Table:
    """A table of a projection. `row` is a `typing.NamedTuple`; its first field is the user's id, but in COUNT tables.

    `key` names the fields of the primary key; all other fields of a COUNT table are numbers. `indexes` are what
    follows ON TABLE in CREATE INDEX, such as "(plan, user_id)". `personal` are texts of a LOG that become empty in all
    rows of a user who is erased. Raises `BadConfiguration` for what cannot be a table.
    """

    def __init__(
        self,
        name: str,
        row: type[Any],
        *,
        kind: Kind = Kind.STATE,
        key: Sequence[str] = ("user_id",),
        indexes: Sequence[str] = (),
        personal: Sequence[str] = (),
    ) -> None:
        self.name, self.row, self.kind, self.key, self.indexes = name, row, kind, tuple(key), tuple(indexes)
        if not _NAME.fullmatch(name):
            raise BadConfiguration(f"projections: {name!r} is not a name of a table: a-z, 0-9 and _ only")
        self.columns = _columns(name, row)
        self.names = tuple(column.name for column in self.columns)
        if not set(self.key) <= set(self.names):
            raise BadConfiguration(f"projections: the key of {name} names fields that it does not have")
        self.personal = tuple(personal)
        if not set(self.personal) <= {column.name for column in self.columns if column.type == "text"}:
            raise BadConfiguration(f"projections: what is personal in {name} must be texts")
        self.numbers = tuple(field for field in self.names if field not in self.key)
        self._key_places = [self.names.index(field) for field in self.key]
        self._number_places = [self.names.index(field) for field in self.numbers]

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    def at(self, version: int) -> str:
        """The table's name for this version, without the schema."""
        return f"{self.name}_v{version}"

    @property
    def definition(self) -> str:
        """All that decides whether a stored version still fits this program."""
        columns = ",".join(f"{column.name} {column.type} {column.null}" for column in self.columns)
        return f"{self.name}:{self.kind.value}({columns})key({','.join(self.key)})"

    def create(self, version: int) -> str:
        """The statement that makes the table without any index."""
        lines = [f"{column.name} {_full_type(column)}{'' if column.null else ' not null'}" for column in self.columns]
        return f"create table {SCHEMA}.{self.at(version)} ({', '.join(lines)}) with (fillfactor = 90)"

    def create_key(self, version: int) -> str:
        """The statement that makes the index of its key, if it is not there."""
        return (
            f"create unique index if not exists {self.at(version)}_key on {SCHEMA}.{self.at(version)}"
            f" ({', '.join(self.key)})"
        )

    def create_indexes(self, version: int) -> list[str]:
        """The statements that make all its indexes, those that are not there."""
        place = f"{SCHEMA}.{self.at(version)}"
        statements = [self.create_key(version)]
        statements += [
            f"create index if not exists {self.at(version)}_{number} on {place} {index}"
            for number, index in enumerate(self.indexes, 1)
        ]
        return statements

    def keep_tidy(self, version: int, *, tidy: bool) -> str:
        """The statement that lets the server vacuum and analyze the table by itself, or not while it is loaded."""
        return f"alter table {SCHEMA}.{self.at(version)} set (autovacuum_enabled = {tidy})"

    def differences(self, one: int, other: int) -> str:
        """The keys and rows, as text, in which two versions differ; $1: at most so many."""
        key = ", ".join(self.key)
        return (
            f"select {key}, a::text as one, b::text as other from {self._rows(one)} a"  # noqa: S608
            f" full join {self._rows(other)} b using ({key}) where a is distinct from b limit $1"
        )

    def fingerprint(self, version: int) -> str:
        """How many rows there are, and the sum of 64-bit hashes of all of them: equal for equal rows, only."""
        return f"select count(*), sum(hash_record_extended(t, 1)) from {self._rows(version)} t"  # noqa: S608

    def _rows(self, version: int) -> str:
        """The rows that say anything: counts of nothing are as good as none."""
        place = f"{SCHEMA}.{self.at(version)}"
        return place if self.kind is not Kind.COUNT else f"(select * from {place} where not ({self._zeros}))"  # noqa: S608

    @property
    def _zeros(self) -> str:
        return " and ".join(f"{name} = 0" for name in self.numbers)

    def drop(self, version: int) -> str:
        """The statement that removes the table."""
        return f"drop table if exists {SCHEMA}.{self.at(version)}"

    def create_view(self, version: int) -> str:
        """The statement that lets readers see this version."""
        rows = f"select {', '.join(self.names)} from {SCHEMA}.{self.at(version)}"  # noqa: S608
        return f"create view {SCHEMA}.{self.name} as {rows}"

    def drop_view(self) -> str:
        """The statement before `create_view`, in the same transaction."""
        return f"drop view if exists {SCHEMA}.{self.name}"

    def select(self, version: int) -> str:
        """Rows of these users; $1 their ids."""
        user = self.names[0]
        return f"select {', '.join(self.names)} from {SCHEMA}.{self.at(version)} where {user} = any ($1)"  # noqa: S608

    def insert(self, version: int, first: int = 1) -> str:
        """Insert rows that are not there, given as an array for each column: arguments from the number `first` on."""
        place = f"{SCHEMA}.{self.at(version)}"
        arrays = ", ".join(f"${number}::{column.type}[]" for number, column in enumerate(self.columns, first))
        order = f" order by {', '.join(self.key)}" if self.kind is Kind.COUNT else ""  # two writers lock in one order
        return f"insert into {place} as t ({', '.join(self.names)}) select * from unnest({arrays}) as r ({', '.join(self.names)}){order}"  # noqa: S608, E501

    def write(self, version: int, first: int = 1) -> str:
        """Insert, replace or add rows, given in the same way, whether or not they are there."""
        insert = self.insert(version, first)
        if self.kind is Kind.LOG:
            return insert
        if self.kind is Kind.DERIVED or not self.numbers:
            return f"{insert} on conflict do nothing"
        new = "t.{0} + excluded.{0}" if self.kind is Kind.COUNT else "excluded.{0}"
        changes = ", ".join(f"{name} = {new.format(name)}" for name in self.numbers)
        return f"{insert} on conflict ({', '.join(self.key)}) do update set {changes}"

    def delete(self, version: int, first: int = 1) -> str:
        """Remove rows by their keys, given as an array for each column of the key."""
        types_ = {column.name: column.type for column in self.columns}
        arrays = ", ".join(f"${number}::{types_[name]}[]" for number, name in enumerate(self.key, first))
        same = " and ".join(f"t.{name} = gone.{name}" for name in self.key)
        return f"delete from {SCHEMA}.{self.at(version)} t using unnest({arrays}) as gone ({', '.join(self.key)}) where {same}"  # noqa: S608, E501

    def clear(self, version: int) -> str:
        """Remove the rows of the users $1; of a LOG, empty what is personal; of a COUNT, remove what nobody has."""
        if self.kind is Kind.COUNT:
            return f"delete from {SCHEMA}.{self.at(version)} where {self._zeros} and $1::uuid[] is not null"  # noqa: S608
        place, of_users = f"{SCHEMA}.{self.at(version)}", f"{self.names[0]} = any ($1::uuid[])"
        if self.kind is not Kind.LOG:
            return f"delete from {place} where {of_users}"  # noqa: S608
        empty = ", ".join(f"{name} = ''" for name in self.personal)
        return f"update {place} set {empty} where {of_users}"  # noqa: S608

    def key_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The key of a row."""
        return tuple([row[place] for place in self._key_places])

    def numbers_of(self, row: tuple[Any, ...]) -> list[Any]:
        """The fields of a row that are not of its key."""
        return [row[place] for place in self._number_places]


def _columns(table: str, row: type[Any]) -> tuple[Column, ...]:
    hints = get_type_hints(row)
    fields = getattr(row, "_fields", None)
    if not fields:
        raise BadConfiguration(f"projections: the rows of {table} must be a typing.NamedTuple with fields")
    return tuple(_column(table, field, hints[field]) for field in fields)


def _column(table: str, name: str, hint: Any) -> Column:
    null = False
    if get_origin(hint) in (Union, types.UnionType):
        inner = [argument for argument in get_args(hint) if argument is not type(None)]
        null, hint = True, inner[0] if len(inner) == 1 else hint
    found = _TYPES.get(get_origin(hint) or hint)
    if found is None or not _NAME.fullmatch(name):
        known = ", ".join(sorted(kind.__name__ for kind in _TYPES))
        raise BadConfiguration(f"projections: {table}.{name} has the type {hint!r}; known are {known}, each or None")
    return Column(name, found, null)


def _full_type(column: Column) -> str:
    return 'text collate "C"' if column.type == "text" else column.type
