"""Migrations: each runs once, in order, whole or not at all, and a database of another program is refused."""

import asyncio

import asyncpg
import pytest

from denizen.errors import BadDeployment
from denizen.postgres.migrations import Migration, known_migrations, migrate
from denizen.testing.postgres import Database

FIRST = Migration(version=1, name="first", sql="CREATE TABLE one (a int); INSERT INTO one VALUES (1);")
SECOND = Migration(version=2, name="second", sql="CREATE TABLE two (a int);")
BROKEN = Migration(version=2, name="broken", sql="CREATE TABLE two (a int); SELECT 1 / 0;")


async def tables(database: Database) -> set[str]:
    connection = await asyncpg.connect(**database.connect_args)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'denizen'")
    await connection.close()
    return {row["tablename"] for row in rows} - {"schema_migrations"}


async def test_the_programs_own_migrations_make_a_shard_and_then_have_nothing_to_do(empty_database: Database) -> None:
    ran = await migrate(empty_database.connect_args)
    assert [migration.version for migration in ran] == list(range(1, len(known_migrations()) + 1))
    assert {"shard", "buckets", "events", "users", "login_names"} <= await tables(empty_database)
    assert await migrate(empty_database.connect_args) == []


async def test_each_runs_once_however_many_processes_migrate_at_once(empty_database: Database) -> None:
    work = (migrate(empty_database.connect_args, migrations=[FIRST, SECOND]) for _ in range(6))
    results = await asyncio.gather(*work)
    assert sorted(len(ran) for ran in results) == [0, 0, 0, 0, 0, 2]


async def test_a_failed_migration_leaves_the_database_at_the_one_before(empty_database: Database) -> None:
    with pytest.raises(BadDeployment, match="0002_broken failed: division by zero"):
        await migrate(empty_database.connect_args, migrations=[FIRST, BROKEN])
    assert await tables(empty_database) == {"one"}
    assert await migrate(empty_database.connect_args, migrations=[FIRST, SECOND]) == [SECOND]


async def test_a_database_newer_than_the_program_is_refused(empty_database: Database) -> None:
    await migrate(empty_database.connect_args, migrations=[FIRST, SECOND])
    with pytest.raises(BadDeployment, match="schema 2, this program knows only 1"):
        await migrate(empty_database.connect_args, migrations=[FIRST])


async def test_a_migration_changed_after_it_ran_is_refused(empty_database: Database) -> None:
    await migrate(empty_database.connect_args, migrations=[FIRST])
    changed = Migration(version=1, name="first", sql="CREATE TABLE one (a bigint)")
    with pytest.raises(BadDeployment, match="0001_first was changed"):
        await migrate(empty_database.connect_args, migrations=[changed, SECOND])
    assert await tables(empty_database) == {"one"}


async def test_the_planner_takes_small_samples_of_the_tables_that_grow(empty_database: Database) -> None:
    await migrate(empty_database.connect_args)
    connection = await asyncpg.connect(**empty_database.connect_args)
    large = await connection.fetch("""
        select attrelid::regclass::text, attname from pg_attribute
        where attrelid = any (array['denizen.events', 'denizen.users', 'denizen.login_names']::regclass[])
          and attnum > 0 and not attisdropped and coalesce(attstattarget, 100) > 10
    """)
    await connection.close()
    assert not large, "one column more, and ANALYZE reads ten times as many rows"
