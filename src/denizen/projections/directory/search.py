"""Searching the directory: filters, an order, and pages by the place of the last user seen.

An answer comes in the order of one index: of the terms, for words of a name (no order asked: "jo" gives joan, john,
joseph …), else of the column that the order stands on. There are two ways to it:

    walk      read on in that order, and keep whom the other filters fit, until the page is full
    collect   find everybody whom all filters fit, by the index of all terms, and sort them

Walking is quick where many fit, collecting where few do. Nobody knows before, least of all the planner: filters that
fit many users each may fit none together. So a search goes on by turns, each from where the one before ended:

    1  walk a bounded stretch, and on while that fills the page
    2  collect the rest of the word in which the walk ended, and walk on behind it (only in the order of words)
    3  collect all that is left, if it is not too many
    4  walk far
    5  collect all that is left

Most searches end with the first. The second is for words that nobody of the asked kind has, before a word that many
have ("an" in the US: first come thousands of Brazilians called Ana). The last two are long: they have a time limit of
their own, and their caller lets few of them run at once.

In the index of all terms, a prefix costs ten times what words cost, for all its entries are gone through, while those
of words are skipped. So a prefix is replaced by the words that begin so, if they are few.

A page starts behind the last user of the page before, by (key, id): whoever keeps the key on which the order stands is
neither repeated nor skipped, whatever else changes meanwhile, and whoever comes or goes.
"""

import time
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from denizen import limits
from denizen.errors import SearchTooBroad
from denizen.events.records import StoredUser
from denizen.projections.directory.model import stored_user
from denizen.projections.directory.statements import Statement
from denizen.projections.directory.wanted import Place, Search, order_of
from denizen.projections.directory.words import WORDS_MAX, words_of

_PROMISING: Final = 4  # a walk that found this part of what was missing goes on
_FIRST_ID: Final = UUID(int=0)
_LAST_ID: Final = UUID(int=(1 << 128) - 1)
_LIMIT_TIME: Final = "select set_config('statement_timeout', $1, true)"


class Found(Struct, frozen=True):
    """A page of users; `next` is None on the last one."""

    users: list[StoredUser] = field(default_factory=list)
    next: Place | None = None


async def search(
    connection: asyncpg.Connection, wanted: Search, long: AbstractAsyncContextManager[Any] | None = None
) -> Found:
    """One page of what is searched for; `long` is entered before turns that may take long. Raises `SearchTooBroad`."""
    words = _words(wanted.name)
    if words is None:
        return Found()
    turns = _Turns(connection, wanted, words)
    try:
        if Statement(wanted, words, None, 0).plain:
            await turns.read_on()
        else:
            async with connection.transaction(isolation="repeatable_read", readonly=True):  # all turns see the same
                await turns.take(long or nullcontext())
    except asyncpg.QueryCanceledError as error:
        raise SearchTooBroad("the search took too long: narrow it down, or leave the sorting out") from error
    page = turns.rows[: wanted.limit]
    more = Place(page[-1]["place"], page[-1]["user_id"]) if len(turns.rows) > wanted.limit else None
    return Found([stored_user(tuple(row)[:5]) for row in page], more)


class _Turns:
    """The turns of one search: what they found, and from where the next one goes on."""

    def __init__(self, connection: asyncpg.Connection, wanted: Search, words: list[str]) -> None:
        self.rows: list[asyncpg.Record] = []
        self.done = False
        self._connection, self._wanted, self._words = connection, wanted, words
        self._place = wanted.after
        self._spread: dict[str, list[str]] = {}

    async def read_on(self) -> None:
        """Everything that comes fits."""
        statement = self._statement()
        self.rows = await self._connection.fetch(statement.walk(None), *statement.arguments)

    async def take(self, long: AbstractAsyncContextManager[Any]) -> None:
        """The turns, until one of them ends the search."""
        await self._walk_on(limits.search_walk_rows)
        if not self.done:
            await self._spread_words()
        few = await self._finish_words()
        if self.done or (few and await self._collect(limits.search_collect_rows)):
            return
        async with long:
            deadline = time.monotonic() + limits.search_long_ms / 1000
            await self._limit_time(deadline)
            await self._walk(limits.search_walk_rows_max)
            if not self.done:
                await self._limit_time(deadline)
                await self._collect(None)

    async def _spread_words(self) -> None:
        """Learn by which words those asked for may be replaced. If nobody has one of them, that is the end."""
        if not self._words:
            return
        statement = self._statement()
        text = statement.terms_of_words(limits.search_words_max)
        found = [row["terms"] for row in await self._connection.fetch(text, *statement.arguments)]
        both = zip(self._words, found, strict=True)
        self._spread = {word: terms for word, terms in both if len(terms) <= limits.search_words_max}
        self.done = not all(found)

    async def _finish_words(self) -> bool:
        """In the order of words: collect the word in which the walk ended, and walk on behind it, some times.

        False if too many fit that word. Only if all words are known: else there are too many, or collecting is dear.
        """
        if order_of(self._wanted) is not None or len(self._spread) < len(self._words):
            return True
        for _ in range(limits.search_words_finished):
            if self.done or self._place is None:
                break
            if not await self._collect(limits.search_collect_rows, str(self._place.key)):
                return False
            await self._walk_on(limits.search_probe_rows)
        return True

    async def _walk_on(self, reach: int) -> None:
        """Walk so far, and on while that fills the page."""
        promising = not self.done
        while promising:
            found = await self._walk(reach)
            promising = not self.done and found * _PROMISING >= self._missing

    async def _walk(self, reach: int) -> int:
        """Read on; how many were found."""
        statement = self._statement()
        rows = await self._connection.fetch(statement.walk(reach), *statement.arguments)
        self.rows += rows
        statement = self._statement()
        end = await self._connection.fetchrow(statement.end(reach), *statement.arguments) if self._missing else None
        if end is None:
            self.done = True
        else:
            self._place = Place(*end)
        return len(rows)

    async def _collect(self, reach: int | None, term: str | None = None) -> bool:
        """Find all that is left, or all that is left of a word; whether that was possible: not if `reach` fit."""
        statement = self._statement()
        text = statement.collect(self._spread, reach, term)
        rows = await self._connection.fetch(text, *statement.arguments)
        if reach is not None and rows and rows[0]["fitting"] >= reach:
            return False
        self.rows += rows
        self.done = term is None or not self._missing
        if term is not None:
            self._place = Place(term, _FIRST_ID if self._wanted.descending else _LAST_ID)
        return True

    @property
    def _missing(self) -> int:
        return self._wanted.limit + 1 - len(self.rows)  # one more tells whether there is another page

    def _statement(self) -> Statement:
        return Statement(self._wanted, self._words, self._place, self._missing)

    async def _limit_time(self, deadline: float) -> None:
        left_ms = max(1, int((deadline - time.monotonic()) * 1000))
        await self._connection.fetchval(_LIMIT_TIME, str(left_ms))


def _words(name: str | None) -> list[str] | None:
    """The words asked for, the longest first; None if nobody can have them."""
    if name is None:
        return []
    words = words_of(name)
    # Who has a word that begins with "ann" has one that begins with "an"; no others share a word of the user.
    words = tuple(word for word in words if not any(other != word and other.startswith(word) for other in words))
    return sorted(words, key=len, reverse=True) if 0 < len(words) <= WORDS_MAX else None
