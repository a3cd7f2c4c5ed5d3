"""A round: some thousand people through the three steps, and what became of each of them.

People whose names are in somebody else's unfinished change wait and come again; so do those whose own command was
given up by the sweeper, with a new one. What a person reserved and cannot use is given back.
"""

import asyncio
import time
from collections.abc import Sequence

from denizen import limits
from denizen.bulk.imports.fates import BUSY, Busy, Cancelled, Fate
from denizen.bulk.imports.people import Maker, Name, Person
from denizen.bulk.imports.settling import Settler
from denizen.bulk.imports.steps import Append, Confirm, Reserve, is_imported
from denizen.bulk.imports.transactions import Pace, Transactions
from denizen.bulk.shards import Shards


class Rounds:
    """Writes people. `resumed`: an earlier run may have written any of them."""

    def __init__(self, shards: Shards, maker: Maker, settler: Settler, *, resumed: bool) -> None:
        self._shards = shards
        self._maker = maker
        self._settler = settler
        self._look_first = resumed
        self._pace = Pace()
        self.unsettled_s = 0.0  # how long names were unsettled in the last round

    async def write(self, people: Sequence[Person], names: Sequence[Name]) -> None:
        """Give every person a fate; `Busy` is left only to those who waited too long."""
        self._set_doubles_aside(people, names)
        await self._steps(people, names, look_first=self._look_first)
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
        self._set_doubles_aside(waiting, theirs)
        await self._steps(waiting, theirs, look_first=True)

    async def _steps(self, people: Sequence[Person], names: Sequence[Name], *, look_first: bool) -> None:
        """The three steps; people who have a fate already are left out."""
        shards, pace = self._shards, self._pace
        began = time.monotonic()
        chosen = [name for name in names if name.person.fate is None]
        await Transactions(shards, Reserve(), pace, look_first=look_first).run(chosen)
        users = [person for person in people if person.fate is None]
        await Transactions(shards, Append(), pace, look_first=look_first).run(users)
        reserved = [name for name in chosen if name.reserved and is_imported(name.person)]
        await Transactions(shards, Confirm(), pace, look_first=False).run(reserved)
        self.unsettled_s = time.monotonic() - began

    def _set_doubles_aside(self, people: Sequence[Person], names: Sequence[Name]) -> None:
        """Of people with the same name in this round, the first goes on; the others come again after it."""
        first: dict[bytes, Person] = {}  # values of two kinds are never the same
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
