"""Rounds: some thousand people each, which go through the three steps one behind the other.

At a time one round is reserved, the one before it is appended and the one before that is confirmed, in the same
transactions: each bucket that they touch is locked and brought forward once for all three. A round's step begins when
the step before it is durable everywhere.

People whose names are in somebody else's unfinished change wait and come again when their round is through; so do those
whose own command was given up by the sweeper, with a new one. What a person reserved and cannot use is given back.
"""

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct

from denizen import limits
from denizen.bulk.imports.fates import BUSY, IMPORTED, Busy, Cancelled, Fate
from denizen.bulk.imports.lines import Row
from denizen.bulk.imports.messages import Report
from denizen.bulk.imports.people import Maker, Name, Person
from denizen.bulk.imports.settling import Settler
from denizen.bulk.imports.steps import APPEND, CONFIRM, RESERVE, is_imported
from denizen.bulk.imports.transactions import Transactions
from denizen.bulk.shards import Shards


class Round(Struct, eq=False):
    """People of one window, the rows that they come from, and their names elsewhere."""

    report: Report  # of the window
    people: list[Person] = []
    rows: list[Row] = []
    names: list[Name] = []
    starts: bool = False  # it is the window's first
    ends: bool = False  # it is the window's last
    began: float = 0.0


class Rounds:
    """Writes rounds. `resumed`: an earlier run may have written any of them."""

    def __init__(self, shards: Shards, maker: Maker, settler: Settler, *, resumed: bool) -> None:
        self._transactions = Transactions(shards)
        self._maker = maker
        self._settler = settler
        self._look_first = resumed
        self._reserved: Round | None = None
        self._appended: Round | None = None
        self.unsettled_s = 0.0  # how long names of the last round were unsettled

    @property
    def idle(self) -> bool:
        """No round is on its way."""
        return self._reserved is None and self._appended is None

    async def push(self, made: Round | None) -> Round | None:
        """Take a round in, and move those before it on by a step; the one that is through, if there is any.

        Every person of it has a fate then; `Busy` is left only to those who waited too long.
        """
        appending, confirming = self._reserved, self._appended
        names: list[Name] = []
        people: list[Person] = []
        reserved: list[Name] = []
        if made is not None:
            made.began = time.monotonic()
            _set_doubles_aside(made.people, made.names)
            names = [name for name in made.names if name.person.fate is None]
        if appending is not None:
            people = [person for person in appending.people if person.fate is None]
        if confirming is not None:
            # Every step takes the buckets in the same order, so this is about how long each name was unsettled.
            self.unsettled_s = time.monotonic() - confirming.began
            reserved = _to_confirm(confirming.names)
        await self._transactions.run(
            (CONFIRM, reserved), (APPEND, people), (RESERVE, names), look_first=self._look_first
        )
        self._reserved, self._appended = made, appending
        if confirming is not None:
            await self._finish(confirming.people, confirming.names)
        return confirming

    async def _finish(self, people: Sequence[Person], names: Sequence[Name]) -> None:
        """Try again what had to wait, and give back what is not used."""
        if all(person.fate is IMPORTED for person in people):
            return
        deadline, before = 0.0, len(people) + 1
        while waiting := [person for person in people if isinstance(person.fate, Busy | Cancelled)]:
            if len(waiting) < before:
                deadline, before = time.monotonic() + limits.import_busy_wait_s, len(waiting)
            elif time.monotonic() > deadline:
                break
            await asyncio.sleep(limits.import_busy_poll_s)
            await self._again(waiting, names)
        refused = {person for person in people if not is_imported(person)}
        await self._settler.settle([name for name in names if name.reserved and name.person in refused])

    async def _again(self, waiting: list[Person], names: Sequence[Name]) -> None:
        chosen = set(waiting)
        theirs = [name for name in names if name.person in chosen]
        await self._settler.settle([name for name in theirs if _is_ours(name.person.fate)])
        await self._settler.settle_old(theirs, [person for person in waiting if person.fate is BUSY])
        for person in waiting:
            if isinstance(person.fate, Cancelled):
                self._maker.again(person, theirs)
            person.fate = None
        for name in theirs:
            name.reserved = False
        _set_doubles_aside(waiting, theirs)
        run = self._transactions.run
        await run((RESERVE, [name for name in theirs if name.person.fate is None]), look_first=True)
        await run((APPEND, [person for person in waiting if person.fate is None]), look_first=True)
        await run((CONFIRM, _to_confirm(theirs)), look_first=False)


def _to_confirm(names: Sequence[Name]) -> list[Name]:
    return [name for name in names if name.reserved and is_imported(name.person)]


def _set_doubles_aside(people: Sequence[Person], names: Sequence[Name]) -> None:
    """Of people with the same name in this round, the first goes on; the others come again after it."""
    values = [value for person in people for _, value in person.home]  # those of two kinds are never the same
    values += [name.value for name in names]
    if len(set(values)) == len(values):
        return
    first: dict[bytes, Person] = {}
    for person in people:
        for _, value in person.home:
            if first.setdefault(value, person) is not person:
                person.fate = BUSY
    for name in names:
        person = name.person
        other = first.setdefault(name.value, person)
        if other is not person:
            later = other if other.line > person.line else person
            later.fate = BUSY
            first[name.value] = person if later is other else other


def _is_ours(fate: Fate | None) -> bool:
    return isinstance(fate, Cancelled) or (isinstance(fate, Busy) and fate.ours)
