"""Searching the directory: filters, an order, and pages by the place of the last user seen.

    by name (no order asked)    the terms, in their order: "jo" gives joan, john, joseph …
    by attribute (no order)     the terms, in the order of ids
    anything else               the users, in the order asked

Each answer comes in the order of one index and ends with the page. A page starts behind the last user of the page
before, by (key, id): whoever keeps the key on which the order stands is neither repeated nor skipped, whatever else
changes meanwhile, and whoever comes or goes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from denizen.events.records import StoredUser
from denizen.projections.directory.model import NAME, stored_user
from denizen.projections.directory.words import words_of

SORTS: Final[Mapping[str, str]] = {
    "created": "d.created_at",
    "updated": "d.updated_at",
    "name": "d.name",
    "email": "d.email",
    "username": "d.username",
}
_LAST: Final = "\U0010ffff"  # behind every character that a text may have
_COLUMNS: Final = "d.user_id, d.version, d.created_at, d.updated_at, d.document"
_FIRST_WORD: Final = """
    not exists (select from unnest(string_to_array(d.name, ' ')) as w
                where {name} || w >= {low} and {name} || w < t.term)"""


class Place(Struct, frozen=True, array_like=True):
    """Where a page ends: the key that the order stands on, and the user's id."""

    key: str | datetime
    user_id: UUID


class Search(Struct, frozen=True, kw_only=True):
    """What is searched for. All filters must hold; texts are compared in their normal form, attributes as text.

    `name`: words, each the beginning of a word of the name. `sort`: a key of `SORTS`; None: what comes quickest.
    Times are from (inclusive) and before (exclusive).
    """

    limit: int
    name: str | None = None
    email: str | None = None
    username: str | None = None
    status: int | None = None
    country: str | None = None
    attributes: tuple[str, ...] = ()  # terms, see `model.attribute_term`
    created_from: datetime | None = None
    created_before: datetime | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    sort: str | None = None
    descending: bool = False
    after: Place | None = None


class Found(Struct, frozen=True):
    """A page of users; `next` is None on the last one."""

    users: list[StoredUser] = field(default_factory=list)
    next: Place | None = None


class _Query:
    """A statement in the making: every value is an argument, every piece of text is from this module."""

    def __init__(self) -> None:
        self.conditions: list[str] = []
        self.arguments: list[Any] = []

    def argument(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def where(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition.format(*(self.argument(value) for value in values)))


async def search(connection: asyncpg.Connection, wanted: Search) -> Found:
    """One page of what is searched for."""
    words = sorted(words_of(wanted.name), key=len, reverse=True) if wanted.name is not None else []
    if wanted.name is not None and not words:
        return Found()
    statement, arguments, key = _statement(wanted, words)
    rows = await connection.fetch(statement, *arguments)
    page = rows[: wanted.limit]
    more = Place(page[-1][key], page[-1]["user_id"]) if len(rows) > wanted.limit else None
    return Found([stored_user(tuple(row)[:5]) for row in page], more)


def _statement(wanted: Search, words: list[str]) -> tuple[str, list[Any], str]:
    query = _Query()
    sort = wanted.sort or _natural_sort(wanted)
    if sort is not None:
        source, key, identifier = "denizen_read.directory d", SORTS[sort], "d.user_id"
        query.where(f"{key} is not null")
        for word in words:
            low, high = query.argument(NAME + word), query.argument(NAME + word + _LAST)
            query.where(
                "d.user_id in (select t.user_id from denizen_read.directory_terms t"  # noqa: S608
                f" where t.term >= {low} and t.term < {high})"
            )
    else:
        source = "denizen_read.directory_terms t join denizen_read.directory d on d.user_id = t.user_id"
        key, identifier = "t.term", "t.user_id"
        if words:
            _by_words(query, words)
        else:
            query.where("t.term = {}", wanted.attributes[0])
    _filter(query, wanted, all_attributes=sort is not None or bool(words))
    if wanted.after is not None:
        sign = "<" if wanted.descending else ">"
        query.where(f"({key}, {identifier}) {sign} ({{}}, {{}})", wanted.after.key, wanted.after.user_id)
    direction = " desc" if wanted.descending else ""
    limit = query.argument(wanted.limit + 1)
    statement = (
        f"select {_COLUMNS}, {key} as place from {source} where {' and '.join(query.conditions)}"  # noqa: S608
        f" order by {key}{direction}, {identifier}{direction} limit {limit}"
    )
    return statement, query.arguments, "place"


def _natural_sort(wanted: Search) -> str | None:
    """The order that the filter itself gives; None: that of the terms."""
    if wanted.name is not None:
        return None
    if wanted.email is not None:
        return "email"
    if wanted.username is not None:
        return "username"
    return None if wanted.attributes else "created"


def _by_words(query: _Query, words: list[str]) -> None:
    """By the longest word; a user of whom several words begin so is found at the first of them only."""
    low, high = query.argument(NAME + words[0]), query.argument(NAME + words[0] + _LAST)
    query.where(f"t.term >= {low} and t.term < {high}")
    query.where(_FIRST_WORD.format(name=f"'{NAME}'", low=low))
    for word in words[1:]:
        query.where("strpos(' ' || d.name, ' ' || {}) > 0", word)


def _filter(query: _Query, wanted: Search, *, all_attributes: bool) -> None:
    for prefix, column in ((wanted.email, "d.email"), (wanted.username, "d.username")):
        if prefix is not None:
            query.where(f"{column} >= {{}} and {column} < {{}}", prefix, prefix + _LAST)
    equal = ((wanted.status, "d.status"), (wanted.country, "d.country"))
    for value, column in equal:
        if value is not None:
            query.where(f"{column} = {{}}", value)
    for term in wanted.attributes if all_attributes else wanted.attributes[1:]:
        query.where(
            "exists (select from denizen_read.directory_terms a where a.term = {} and a.user_id = d.user_id)", term
        )
    times = (
        (wanted.created_from, "d.created_at >="),
        (wanted.created_before, "d.created_at <"),
        (wanted.updated_from, "d.updated_at >="),
        (wanted.updated_before, "d.updated_at <"),
    )
    for moment, comparison in times:
        if moment is not None:
            query.where(f"{comparison} {{}}", moment)
