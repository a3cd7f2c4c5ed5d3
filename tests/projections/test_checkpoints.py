"""Checkpoints: noted once a batch, folded into one row from time to time, the same for whoever reads them."""

import asyncpg
import pytest

from denizen import limits
from denizen.events.login_name_events import LoginNameConfirmed
from denizen.postgres.migrations import known_migrations, migrate
from denizen.projections import registry
from denizen.projections.database import connect_writer, migrate_read
from denizen.projections.reached import all_have
from denizen.projections.runner import Fenced, Runner
from denizen.projections.tables import SCHEMA
from denizen.sharding.ids import BUCKETS, Bucket, Position, Sequence, UserId, mint_user_id
from denizen.testing.postgres import ThrowawayServer
from denizen.testing.projections import History
from denizen.users.events import AttributesChanged

from .plans import PLANS

OLD_SCHEMA = 4  # had a row for each bucket


async def opened(connection: asyncpg.Connection) -> Runner:
    runner = Runner(connection, PLANS, 1)
    await runner.open()
    return runner


async def stored(connection: asyncpg.Connection, *buckets: int) -> list[int]:
    """The checkpoints of these buckets, of which Python and SQL must say the same."""
    known = await registry.checkpoints(connection, "plans", 1)
    told = [
        await connection.fetchval("select denizen_read.checkpoint($1, $2, $3)", "plans", 1, bucket)
        for bucket in buckets
    ]
    assert [known[Bucket(bucket)] for bucket in buckets] == told
    assert len(known) == BUCKETS
    return told


def confirm(history: History, name: UserId, owner: UserId) -> None:
    history.record(name, LoginNameConfirmed(1, owner, owner))  # type: ignore[arg-type]


async def test_those_of_events_that_change_no_row_are_stored_a_moment_later(connection: asyncpg.Connection) -> None:
    history = History()
    ann, name = history.register(bucket=1), mint_user_id(2, 0)
    confirm(history, name, ann)
    runner = await opened(connection)
    assert await runner.apply(history.events) == 2
    assert await stored(connection, 1, 2) == [1, 1], "with what changes rows they go at once"

    confirm(history, name, ann)
    assert await runner.apply(history.events) == 1
    assert runner.checkpoints[Bucket(2)] == 2
    assert await stored(connection, 1, 2) == [1, 1]
    late = await opened(connection)
    assert await late.apply(history.events) == 1, "what was not stored comes again, and changes nothing"
    await runner.store()
    assert await stored(connection, 1, 2) == [1, 2]
    with pytest.raises(Fenced):
        await late.store()

    confirm(history, name, ann)
    await runner.apply(history.events)
    history.register(bucket=3)
    await runner.apply(history.events)
    assert await stored(connection, 1, 2, 3) == [1, 3, 1], "what waited goes with the next batch"
    assert len(await connection.fetch("select * from denizen_read.plans")) == 2


async def test_those_of_many_batches_become_one_row_and_stay_what_they_are(connection: asyncpg.Connection) -> None:
    history = History()
    users = [history.register(bucket=number) for number in (0, 7, BUCKETS - 1)]
    runner = await opened(connection)
    await runner.apply(history.events)
    for step in range(limits.projector_advances_max - 1):
        history.record(users[step % 2], AttributesChanged(changed={"plan": f"silver {step}"}))
        await runner.apply(history.events)
    before = await registry.stored_checkpoints(connection, "plans", 1)
    assert before.advances == limits.projector_advances_max
    last = await stored(connection, 0, 7, BUCKETS - 1, 5)
    assert last == [33, 32, 1, 0]

    late = await opened(connection)
    await runner.store()
    after = await registry.stored_checkpoints(connection, "plans", 1)
    assert (after.sequences, after.advances, after.number) == (before.sequences, 0, before.number + 1)
    assert await stored(connection, 0, 7, BUCKETS - 1, 5) == last
    assert await all_have(connection, users[1], Position(Bucket(7), Sequence(32)))
    assert not await all_have(connection, users[1], Position(Bucket(7), Sequence(33)))
    history.record(users[0], AttributesChanged(changed={"plan": "gold"}))
    with pytest.raises(Fenced):
        await late.apply(history.events)
    await runner.apply(history.events)
    assert await stored(connection, 0, 7) == [34, 32]
    assert await connection.fetchval("select plan from denizen_read.plans where user_id = $1", users[0]) == "gold"


async def test_those_of_the_schema_before_are_kept(postgres_server: ThrowawayServer) -> None:
    database = postgres_server.create_database(template="template0")
    before = [each for each in known_migrations("denizen.projections") if each.version <= OLD_SCHEMA]
    await migrate(database.connect_args, migrations=before, schema=SCHEMA)
    connection = await connect_writer(database.connect_args)
    try:
        for version in (1, 2):
            await connection.execute(
                "insert into denizen_read.checkpoints select 'plans', $1, b, b * $1 from generate_series(0, 4095) b",
                version,
            )
        await migrate_read(database.connect_args)
        for version in (1, 2):
            known = await registry.stored_checkpoints(connection, "plans", version)
            assert known.sequences == {bucket: bucket * version for bucket in range(BUCKETS)}
            assert (known.number, known.advances) == (0, 0)
    finally:
        await connection.close()
        postgres_server.drop_database(database)
