"""Activity and statistics: folds in memory, and queries over the real tables."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from denizen.projections import registry
from denizen.projections.activity import ACTIVITY, ActivityPlace, read_activity
from denizen.projections.database import connect_writer
from denizen.projections.projection import Projection
from denizen.projections.runner import Runner
from denizen.projections.statistics import STATISTICS, USERS, read_statistics
from denizen.testing.postgres import Database
from denizen.testing.projections import BEGIN, History, MemoryModel
from denizen.users.events import (
    AttributesChanged,
    ProfileChanged,
    UserDeleted,
    UserErased,
    UserReactivated,
    UserSuspended,
)


@pytest.fixture
async def connection(read_database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect_writer(read_database.connect_args)
    yield connection
    await connection.close()


async def applied(connection: asyncpg.Connection, projection: Projection, history: History) -> None:
    async with connection.transaction():
        await registry.create_version(connection, projection, 1, state="running", indexed=True)
        await registry.make_live(connection, projection, 1)
    runner = Runner(connection, projection, 1)
    await runner.open()
    for start in range(0, len(history.events), 3):
        await runner.apply(history.events[start : start + 3])


async def test_activity_is_told_by_user_and_by_actor_newest_first(connection: asyncpg.Connection) -> None:
    history = History()
    ann = history.register(email="ann@example.com", country="DE", actor="key:a")
    bob = history.register(username="bob", actor="key:b")
    history.record(ann, ProfileChanged(country="FR", display_name=None), actor="key:b")
    history.record(bob, AttributesChanged(changed={"plan": "secret"}, removed=["x"]), actor="key:a")
    await applied(connection, ACTIVITY, history)
    everything = await read_activity(connection, user_id=None, actor=None, since=None, before=None, limit=10)
    assert [row.changes for row in everything] == [
        "attributes.plan attributes.x", "display_name country", "username", "email country"
    ]  # fmt: skip
    of_ann = await read_activity(connection, user_id=ann, actor=None, since=None, before=None, limit=10)
    assert [row.version for row in of_ann] == [2, 1]
    by_b = await read_activity(connection, user_id=None, actor="key:b", since=None, before=None, limit=10)
    assert [row.user_id for row in by_b] == [ann, bob]
    last = everything[1]
    rest = await read_activity(
        connection, user_id=None, actor=None, since=None, limit=10,
        before=ActivityPlace(last.at, last.user_id, last.version),
    )  # fmt: skip
    assert rest == everything[2:]
    assert "secret" not in str(everything)


async def test_users_are_counted_where_they_are_and_events_in_their_hour(connection: asyncpg.Connection) -> None:
    history = History(step=timedelta(minutes=20))
    ann = history.register(country="DE", attributes={"plan": "free"})
    bob = history.register(country="DE", attributes={"plan": "free"})
    cy = history.register(country="FR")
    history.record(ann, AttributesChanged(changed={"plan": "gold"}))
    history.record(bob, UserSuspended())
    history.record(cy, UserDeleted())
    history.record(cy, UserErased())
    history.record(bob, ProfileChanged(country=None))
    await applied(connection, STATISTICS, history)
    found = await read_statistics(connection, "hour", BEGIN, BEGIN + timedelta(days=1))
    assert found.counts == {
        "status": {"active": 1, "suspended": 1},
        "country": {"": 1, "DE": 1},
        "plan": {"free": 1, "gold": 1},
    }
    assert [(each.sign_ups, each.changes, each.deletions, each.erasures) for each in found.periods] == [
        (3, 0, 0, 0), (0, 2, 1, 0), (0, 1, 0, 1)
    ]  # fmt: skip
    (day,) = (await read_statistics(connection, "day", BEGIN, BEGIN + timedelta(days=1))).periods
    assert (day.sign_ups, day.changes, day.deletions, day.erasures) == (3, 3, 1, 1)


def test_a_user_counts_once_whatever_the_batches() -> None:
    history = History()
    ann = history.register(attributes={"plan": "free"})
    for plan in ("gold", "free", "gold"):
        history.record(ann, AttributesChanged(changed={"plan": plan}))
    history.record(ann, UserSuspended())
    history.record(ann, UserReactivated())
    for batch in (1, 2, 100):
        model = MemoryModel(STATISTICS)
        model.apply(history.events, batch=batch)
        assert {(row.dimension, row.value): row.users for row in model.rows(USERS) if row.users} == {
            ("country", ""): 1, ("plan", "gold"): 1, ("status", "active"): 1
        }  # fmt: skip
