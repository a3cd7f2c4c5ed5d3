"""Brings a shard's database to this program's schema: numbered SQL files, forward only.

The files are `migrations/NNNN_name.sql` beside this module. Each runs once in a shard, in one transaction together with
its record in `denizen.schema_migrations`; a database of another kind has files and a schema of its own. An advisory
lock lets one process at a time migrate a database; others wait. A file that was changed after it ran, or a database
that holds migrations this program does not know, is refused: neither is guessed at.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.errors import BadDeployment

SCHEMA = "denizen"
LOCK_KEY = 0x64656E697A656E  # "denizen"
FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


class Migration(Struct, frozen=True):
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the file's text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known_migrations(package: str = "denizen.postgres") -> tuple[Migration, ...]:
    """Return the migrations of this package in order. Their numbers are 1, 2, 3 … without holes."""
    found = []
    for file in resources.files(package).joinpath("migrations").iterdir():
        name = FILE_NAME.fullmatch(file.name)
        if name:
            found.append(Migration(version=int(name[1]), name=name[2], sql=file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    numbers = [migration.version for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise BadDeployment(f"this program's migrations are not numbered 1, 2, 3 …: {numbers}; install it again")
    return tuple(found)


async def migrate(
    connect_args: Mapping[str, Any], *, migrations: Sequence[Migration] | None = None, schema: str = SCHEMA
) -> list[Migration]:
    """Bring the database to this program's schema; return the migrations that ran now.

    Without `migrations` they are those of a shard. `schema` is where they make their tables: a name of our own.

    Raises `BadDeployment` if the database is newer than this program, was made by changed files, or a migration
    fails; the database then stays at the one before it.
    """
    known = known_migrations() if migrations is None else migrations
    connection = await asyncpg.connect(**connect_args)
    try:
        await connection.execute(f"SET lock_timeout = '{limits.migration_lock_s}s'")
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        await connection.execute("RESET lock_timeout")
        await connection.execute(BOOKKEEPING.format(schema=schema))
        return await _apply(connection, known, schema)
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, known: Sequence[Migration], schema: str) -> list[Migration]:
    rows = await connection.fetch(f"SELECT version, name, checksum FROM {schema}.schema_migrations ORDER BY version")  # noqa: S608
    applied = {row["version"]: row for row in rows}
    newest = known[-1].version if known else 0
    if applied and max(applied) > newest:
        raise BadDeployment(
            f"the database has schema {max(applied)}, this program knows only {newest}: "
            "it was used by a newer Denizen; install that one (schemas never go back)",
            database=max(applied),
            program=newest,
        )
    ran = []
    for migration in known:
        done = applied.get(migration.version)
        if done is None:
            await _run(connection, migration, schema)
            ran.append(migration)
        elif done["checksum"] != migration.checksum:
            raise BadDeployment(
                f"migration {migration.version:04}_{migration.name} was changed after this database ran it: "
                "use the Denizen release that made the database, or a newer one"
            )
    return ran


async def _run(connection: asyncpg.Connection, migration: Migration, schema: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {schema}")
            await connection.execute(migration.sql)
            await connection.execute(
                f"INSERT INTO {schema}.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",  # noqa: S608
                migration.version,
                migration.name,
                migration.checksum,
            )
    except asyncpg.PostgresError as error:
        raise BadDeployment(f"migration {migration.version:04}_{migration.name} failed: {error}") from error
