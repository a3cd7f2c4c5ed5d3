"""Searching the directory: filters, an order, and pages by the place of the last user seen.

An answer comes in the order of one index: of the terms, for words of a name (no order asked: "jo" gives joan, john,
joseph …), else of the column that the order stands on. There are two ways to it:

    walk      read on in that order, and keep whom the other filters fit, until the page is full
    collect   find everybody whom all filters fit, by the index of all terms, and sort them

Walking is quick where many fit, collecting where few do. Nobody knows before, least of all the planner: filters that
fit many users each may fit none together. So a search walks a bounded stretch. If that did not fill the page, it
collects a bounded number. If more than that fit, only the beginning of the order was bare of them: it walks further.

A page starts behind the last user of the page before, by (key, id): whoever keeps the key on which the order stands is
neither repeated nor skipped, whatever else changes meanwhile, and whoever comes or goes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from denizen import limits
from denizen.events.records import StoredUser
from denizen.projections.directory.model import COUNTRY, NAME, SEPARATOR, STATUS, stored_user
from denizen.projections.directory.words import words_of
from denizen.users.state import Status

SORTS: Final[Mapping[str, str]] = {
    "created": "d.created_at",
    "updated": "d.updated_at",
    "name": "d.name",
    "email": "d.email",
    "username": "d.username",
}
_EVERYBODY: Final = 1 << 62
_TRIES: Final = (
    ("walk", limits.search_walk_rows),
    ("collect", limits.search_collect_rows),
    ("walk", limits.search_walk_rows_max),
    ("collect", _EVERYBODY),
)
_LAST: Final = "\U0010ffff"  # behind every character that a text may have
_COLUMNS: Final = "d.user_id, d.version, d.created_at, d.updated_at, d.document"
_TERMS: Final = "array_to_tsvector(string_to_array(d.terms, E'\\n'))"
# The first word of a name, in order, that begins as asked; a user of whom several words do is found there only.
_FIRST_WORD: Final = """
    (select min('n:' || w) from unnest(string_to_array(d.name, ' ')) as w
     where 'n:' || w >= {low} and 'n:' || w < {high})"""
_HAS_TERM: Final = "strpos(E'\\n' || d.terms || E'\\n', {}) > 0"
_WALK_WORDS: Final = """
    select {columns}, t.term as place
    from (select t.term, t.user_id from denizen_read.directory_terms t
          where {stretch} order by t.term{way}, t.user_id{way} limit {reach}) t
    cross join lateral (select * from denizen_read.directory d where d.user_id = t.user_id offset 0) d
    where {filters} order by t.term{way}, t.user_id{way} limit {limit}
"""
_WALK_COLUMN: Final = """
    select {columns}, d.place
    from (select d.*, {key} as place from denizen_read.directory d
          where {stretch} order by {key}{way}, d.user_id{way} limit {reach}) d
    where {filters} order by d.place{way}, d.user_id{way} limit {limit}
"""
_COLLECT: Final = """
    with found as materialized (
        select * from (select {columns}, {key} as place from denizen_read.directory d where {filters}) d
        where {after} limit {reach}
    )
    select *, (select count(*) from found) as fitting from found d
    order by d.place{way}, d.user_id{way} limit {limit}
"""


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


class _Statement:
    """A statement in the making: every value is an argument, every piece of text is from this module."""

    def __init__(self, wanted: Search, words: list[str]) -> None:
        self.wanted, self.words = wanted, words
        self.arguments: list[Any] = []
        self.sort = wanted.sort or _natural_sort(wanted)
        self.key = "t.term" if self.sort is None else SORTS[self.sort]
        self.way = " desc" if wanted.descending else ""

    def argument(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def of(self, condition: str, *values: Any) -> str:
        return condition.format(*(self.argument(value) for value in values))

    def walk(self, reach: int) -> tuple[str, bool]:
        """Read on for at most `reach` entries; with whether that is all there is to do."""
        wanted = self.wanted
        if self.sort is None:
            template, identifier = _WALK_WORDS, "t.user_id"
            low, high = self.argument(NAME + self.words[0]), self.argument(NAME + self.words[0] + _LAST)
            stretch = [f"t.term >= {low} and t.term < {high}"]
            filters = self.by_row(self.words[1:])
            once = [f"t.term = {_FIRST_WORD.format(low=low, high=high)}"]
        else:
            template, identifier = _WALK_COLUMN, "d.user_id"
            stretch = [f"{self.key} is not null", *self.ranges(self.sort)]
            filters = self.by_row(self.words)
            once = []
        if wanted.after is not None:
            stretch.append(self.after(self.key, identifier))
        text = template.format(
            columns=_COLUMNS,
            key=self.key,
            way=self.way,
            stretch=" and ".join(stretch),
            filters=" and ".join([*once, *filters]) or "true",
            reach=self.argument(reach if filters else None),
            limit=self.argument(wanted.limit + 1),
        )
        return text, not filters

    def collect(self, reach: int) -> str:
        """Find everybody, at most `reach`, and sort."""
        wanted, key, filters = self.wanted, self.key, self.by_index(self.words)
        if self.sort is None:
            low, high = self.argument(NAME + self.words[0]), self.argument(NAME + self.words[0] + _LAST)
            key = _FIRST_WORD.format(low=low, high=high)
        else:
            filters += [f"{key} is not null", *self.ranges(self.sort)]
        return _COLLECT.format(
            columns=_COLUMNS,
            key=key,
            way=self.way,
            filters=" and ".join(filters),
            after="true" if wanted.after is None else self.after("d.place", "d.user_id"),
            reach=self.argument(reach),
            limit=self.argument(wanted.limit + 1),
        )

    def after(self, key: str, identifier: str) -> str:
        """Behind the page before."""
        place, sign = self.wanted.after, "<" if self.wanted.descending else ">"
        assert place is not None  # noqa: S101 - asked for only then
        return self.of(f"({key}, {identifier}) {sign} ({{}}, {{}})", place.key, place.user_id)

    def by_row(self, words: list[str]) -> list[str]:
        """All filters, as is cheapest for a row at hand; but for the ranges of the column that the order stands on."""
        wanted = self.wanted
        found = [self.of("strpos(' ' || d.name, ' ' || {}) > 0", word) for word in words]
        found += [self.of(_HAS_TERM, SEPARATOR + term + SEPARATOR) for term in wanted.attributes]
        if wanted.country is not None:
            found.append(self.of("d.country = {}", wanted.country))
        if wanted.status is not None:
            found.append(self.of("d.status = {}", wanted.status))
        return found + self.other_ranges()

    def by_index(self, words: list[str]) -> list[str]:
        """The same, by the index of all terms."""
        wanted = self.wanted
        terms = [_lexeme(NAME + word) + ":*" for word in words] + [_lexeme(term) for term in wanted.attributes]
        if wanted.country is not None:
            terms.append(_lexeme(COUNTRY + wanted.country))
        found = []
        if wanted.status == Status.ACTIVE:
            found.append(self.of("d.status = {}", wanted.status))
        elif wanted.status is not None:
            terms.append(_lexeme(STATUS + str(wanted.status)))
        if terms:
            found.append(self.of(f"{_TERMS} @@ {{}}::text::tsquery", " & ".join(terms)))
        return found + self.other_ranges()

    def other_ranges(self) -> list[str]:
        """What is asked of columns that the order does not stand on."""
        return [condition for column in SORTS if column != self.sort for condition in self.ranges(column)]

    def ranges(self, column: str) -> list[str]:
        """What is asked of a column that can be sorted by."""
        wanted, name = self.wanted, SORTS[column]
        prefix = {"email": wanted.email, "username": wanted.username}.get(column)
        if prefix is not None:
            return [self.of(f"{name} >= {{}} and {name} < {{}}", prefix, prefix + _LAST)]
        begin, end = {
            "created": (wanted.created_from, wanted.created_before),
            "updated": (wanted.updated_from, wanted.updated_before),
        }.get(column, (None, None))
        found = [] if begin is None else [self.of(f"{name} >= {{}}", begin)]
        return found if end is None else [*found, self.of(f"{name} < {{}}", end)]


async def search(connection: asyncpg.Connection, wanted: Search) -> Found:
    """One page of what is searched for."""
    words = sorted(words_of(wanted.name), key=len, reverse=True) if wanted.name is not None else []
    if wanted.name is not None and not words:
        return Found()
    rows: list[asyncpg.Record] = []
    for way, reach in _TRIES:
        statement = _Statement(wanted, words)
        text, whole = statement.walk(reach) if way == "walk" else (statement.collect(reach), False)
        rows = await connection.fetch(text, *statement.arguments)
        if whole or (len(rows) > wanted.limit if way == "walk" else not rows or rows[0]["fitting"] < reach):
            break
    page = rows[: wanted.limit]
    more = Place(page[-1]["place"], page[-1]["user_id"]) if len(rows) > wanted.limit else None
    return Found([stored_user(tuple(row)[:5]) for row in page], more)


def _natural_sort(wanted: Search) -> str | None:
    """The order that the filter itself gives; None: that of the terms."""
    if wanted.name is not None:
        return None
    if wanted.email is not None:
        return "email"
    return "created" if wanted.username is None else "username"


def _lexeme(term: str) -> str:
    """A term in the text of a tsquery."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
