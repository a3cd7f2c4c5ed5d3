"""The projector's connection is cut at every statement, before and after it ran; the tables end as if nothing was."""

from typing import Any

import asyncpg
import pytest

from denizen.events.lanes import BROKEN
from denizen.projections import registry
from denizen.projections.applying import apply_together
from denizen.projections.arrivals import Arrivals
from denizen.projections.database import connect_writer
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.runner import Runner
from denizen.testing.postgres import Database
from denizen.testing.projections import History, MemoryModel
from denizen.users.events import AttributesChanged, UserDeleted

from .plans import PLANS

PROJECTIONS = (PLANS, DIRECTORY)


class Cut(Exception):
    """The process would have been killed here."""


class Fragile:
    """A connection that ends at its nth statement: before it is sent, or once it ran."""

    def __init__(self, connection: asyncpg.Connection, statement: int, *, after: bool) -> None:
        self._connection, self._left, self._after = connection, statement, after

    def transaction(self) -> Any:
        return _Transaction(self)

    async def execute(self, *arguments: Any) -> Any:
        return await self._do(self._connection.execute, *arguments)

    async def fetch(self, *arguments: Any) -> Any:
        return await self._do(self._connection.fetch, *arguments)

    async def _do(self, work: Any, *arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            self._connection.terminate()
            raise Cut
        answer = await work(*arguments)
        if self._left == 0:
            self._connection.terminate()
            raise Cut
        return answer


class _Transaction:
    def __init__(self, fragile: Fragile) -> None:
        self._fragile = fragile

    async def __aenter__(self) -> None:
        await self._fragile.execute("begin")

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self._fragile.execute("commit")


def story() -> History:
    history = History()
    users = [history.register(bucket=number % 3, attributes={"plan": "gold plus"}) for number in range(4)]
    history.record(users[0], AttributesChanged(changed={"plan": "silver"}))
    history.record(users[1], AttributesChanged(changed={"plan": "poison"}))
    history.record(users[2], UserDeleted())
    return history


def expected(history: History) -> list[list[tuple[Any, ...]]]:
    models = {projection: MemoryModel(projection) for projection in PROJECTIONS}
    for model in models.values():
        model.apply(history.events)
    return [
        sorted((tuple(row) for row in model.rows(table)), key=repr)
        for projection, model in models.items()
        for table in projection.tables
    ]


async def content(connection: asyncpg.Connection) -> list[list[tuple[Any, ...]]]:
    return [
        sorted((tuple(row) for row in await connection.fetch(f"select * from denizen_read.{table.name}")), key=repr)  # noqa: S608
        for projection in PROJECTIONS
        for table in projection.tables
    ]


@pytest.mark.parametrize("after", [False, True])
async def test_a_projector_killed_at_every_statement_applies_each_event_once(
    read_database: Database, after: bool
) -> None:
    history = story()
    whole = expected(history)
    look = await connect_writer(read_database.connect_args)
    statement, crashed = 0, True
    try:
        while crashed:
            statement += 1
            async with look.transaction():
                for projection in PROJECTIONS:
                    await registry.create_version(look, projection, statement, state="running", indexed=True)
                    await registry.make_live(look, projection, statement)
            crashed = await _apply_until_cut(read_database, history, statement, after=after)
            await apply_together(look, await _opened(look, statement), Arrivals.of(history.events))
            assert await content(look) == whole, f"cut at statement {statement}"
            assert [each.stream_version for each in await registry.parked(look) if each.version == statement] == [2]
    finally:
        await look.close()
    assert statement > 8


async def _opened(connection: asyncpg.Connection, version: int) -> list[Runner]:
    runners = [Runner(connection, projection, version) for projection in PROJECTIONS]
    for runner in runners:
        await runner.open()
    return runners


async def _apply_until_cut(database: Database, history: History, statement: int, *, after: bool) -> bool:
    connection = await connect_writer(database.connect_args)
    try:
        runners = await _opened(connection, statement)
        fragile: Any = Fragile(connection, statement, after=after)
        for runner in runners:
            runner._connection = fragile
        for events in (history.events[:5], history.events[5:]):
            await apply_together(fragile, runners, Arrivals.of(events))
    except (Cut, *BROKEN):
        return True
    else:
        return False
    finally:
        connection.terminate()
