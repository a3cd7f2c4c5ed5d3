"""The statements of a search. Every value is an argument, every piece of text is from this module.

Each is about the stretch of the order behind a place: so statements one after the other, each from where the one before
ended, neither repeat nor skip anybody, whatever changes between them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from denizen.projections.directory.model import COUNTRY, NAME, SEPARATOR, STATUS
from denizen.projections.directory.wanted import SORTS, Place, Search, order_of
from denizen.users.state import Status

_PREFIXES_MAX: Final = 2  # that are looked up in the index of all terms: it goes through all their entries
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
_END_WORDS: Final = """
    select t.term, t.user_id from denizen_read.directory_terms t
    where {stretch} order by t.term{way}, t.user_id{way} limit 1 offset {reach} - 1
"""
_END_COLUMN: Final = """
    select {key}, d.user_id from denizen_read.directory d
    where {stretch} order by {key}{way}, d.user_id{way} limit 1 offset {reach} - 1
"""
# `fitting` stands alone so that its plan knows neither the limit nor the place. Otherwise the planner, which takes
# filters to be independent, hopes to find so many soon in the order of the answer: where none fits, that reads all.
_COLLECT: Final = """
    with fitting as materialized (
        select {columns}, {key} as place from denizen_read.directory d where {filters}
    ), found as materialized (
        select * from fitting d where {stretch} limit {reach}
    )
    select *, (select count(*) from found) as fitting from found d
    order by d.place{way}, d.user_id{way} limit {limit}
"""
# The words that begin so, a few of them: from each one to the next.
_WORDS_OF: Final = """
    select array(
        with recursive found as (
            select (select min(t.term) from denizen_read.directory_terms t
                    where t.term >= asked.low and t.term < asked.high) as term, 1 as number
            union all
            select (select min(t.term) from denizen_read.directory_terms t
                    where t.term > found.term and t.term < asked.high), found.number + 1
            from found where found.term is not null and found.number <= $3
        )
        select term from found where term is not null) as terms
    from unnest($1::text[], $2::text[]) with ordinality as asked (low, high, place) order by asked.place
"""


class Statement:
    """A statement about what is wanted behind a place, for at most `limit` users. Each is asked for one text only."""

    def __init__(self, wanted: Search, words: Sequence[str], after: Place | None, limit: int) -> None:
        self.wanted, self.words, self.place, self.limit = wanted, words, after, limit
        self.arguments: list[Any] = []
        self.sort = order_of(wanted)
        self.key = "t.term" if self.sort is None else SORTS[self.sort]
        self.way = " desc" if wanted.descending else ""

    def argument(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def of(self, condition: str, *values: Any) -> str:
        return condition.format(*(self.argument(value) for value in values))

    @property
    def plain(self) -> bool:
        """Whether all that is read on in order fits."""
        return not Statement(self.wanted, self.words, None, 0).filters()

    def walk(self, reach: int | None) -> str:
        """Read on for at most `reach` entries."""
        template = _WALK_WORDS if self.sort is None else _WALK_COLUMN
        return self.along(template, reach, filters=" and ".join(self.once() + self.filters()) or "true")

    def end(self, reach: int) -> str:
        """Where a walk of `reach` entries ended; no row if there are not so many."""
        return self.along(_END_WORDS if self.sort is None else _END_COLUMN, reach, filters="")

    def along(self, template: str, reach: int | None, filters: str) -> str:
        if self.sort is None:
            low, high = map(self.argument, _range(self.words[0]))
            identifier, stretch = "t.user_id", [f"t.term >= {low} and t.term < {high}"]
        else:
            identifier, stretch = "d.user_id", [f"{self.key} is not null", *self.ranges(self.sort)]
        return template.format(
            columns=_COLUMNS,
            key=self.key,
            way=self.way,
            stretch=" and ".join(stretch + self.behind(self.key, identifier)),
            filters=filters,
            reach=self.argument(reach),
            limit=self.argument(self.limit) if filters else "",
        )

    def once(self) -> list[str]:
        """In the order of words: a user of whom several words fit is found by the first one."""
        if self.sort is not None:
            return []
        return [f"t.term = {self.first_word()}"]

    def first_word(self) -> str:
        low, high = map(self.argument, _range(self.words[0]))
        return _FIRST_WORD.format(low=low, high=high)

    def filters(self) -> list[str]:
        """What a user at hand must fit who was found in order."""
        return self.by_row(self.words[1:] if self.sort is None else self.words)

    def collect(self, spread: Mapping[str, Sequence[str]], reach: int | None, term: str | None = None) -> str:
        """Find everybody, or at most `reach`, and sort; with a term, only those whose place has it.

        `spread`: for words of which that is known, the terms of all words that begin so.
        """
        key, stretch = self.key, self.behind("d.place", "d.user_id")
        if term is not None:
            spread = {**spread, self.words[0]: [term]}
            stretch.append(self.of("d.place = {}", term))
        filters = self.by_index(self.words, spread)
        if self.sort is None:
            key = self.first_word()
        else:
            filters += [f"{key} is not null", *self.ranges(self.sort)]
        return _COLLECT.format(
            columns=_COLUMNS,
            key=key,
            way=self.way,
            filters=" and ".join(filters),
            stretch=" and ".join(stretch) or "true",
            reach=self.argument(reach),
            limit=self.argument(self.limit),
        )

    def terms_of_words(self, terms_max: int) -> str:
        """For each word in turn, the terms of the words that begin so, and one more if there are more than so many."""
        lows, highs = zip(*map(_range, self.words), strict=True)
        self.arguments += [lows, highs, terms_max]
        return _WORDS_OF

    def behind(self, key: str, identifier: str) -> list[str]:
        """Behind the place, if there is one."""
        if self.place is None:
            return []
        sign = "<" if self.wanted.descending else ">"
        return [self.of(f"({key}, {identifier}) {sign} ({{}}, {{}})", self.place.key, self.place.user_id)]

    def by_row(self, words: Sequence[str]) -> list[str]:
        """All filters, as is cheapest for a row at hand; but for the ranges of the column that the order stands on."""
        wanted = self.wanted
        found = [self.has_word(word) for word in words]
        found += [self.of(_HAS_TERM, SEPARATOR + term + SEPARATOR) for term in wanted.attributes]
        if wanted.country is not None:
            found.append(self.of("d.country = {}", wanted.country))
        if wanted.status is not None:
            found.append(self.of("d.status = {}", wanted.status))
        return found + self.other_ranges()

    def has_word(self, word: str) -> str:
        return self.of("strpos(' ' || d.name, ' ' || {}) > 0", word)

    def by_index(self, words: Sequence[str], spread: Mapping[str, Sequence[str]]) -> list[str]:
        """The same, by the index of all terms."""
        wanted = self.wanted
        prefixes = [word for word in words if word not in spread]
        terms = [f"({' | '.join(map(_lexeme, spread[word]))})" for word in words if word in spread]
        terms += [_lexeme(NAME + word) + ":*" for word in prefixes[:_PREFIXES_MAX]]
        terms += [_lexeme(term) for term in wanted.attributes]
        if wanted.country is not None:
            terms.append(_lexeme(COUNTRY + wanted.country))
        found = [self.has_word(word) for word in prefixes[_PREFIXES_MAX:]]
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


def _range(word: str) -> tuple[str, str]:
    """From (inclusive) and before (exclusive): the terms of names that begin so."""
    return NAME + word, NAME + word + _LAST


def _lexeme(term: str) -> str:
    """A term in the text of a tsquery."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
