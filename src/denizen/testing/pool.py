"""Databases that one test after the other uses: cleaning one is much quicker than making and dropping it.

    pool = DatabasePool(server)
    with pool.databases(2) as (one, other): ...

A database that a test damages (its schema, its settings) must not come from here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from denizen.testing.postgres import Database, ThrowawayServer, run_blocking

_TABLES = (
    "events",
    "users",
    "login_names",
    "login_names_unsettled",
    "idempotency",
    "cancelled_commands",
    "erasures",
    "api_keys",
    "buckets",
    "shard",
)
_CLEAN = ";".join(f"delete from denizen.{table}" for table in _TABLES)  # noqa: S608 - a constant


class DatabasePool:
    """Migrated databases without any rows, on one throwaway server."""

    def __init__(self, server: ThrowawayServer) -> None:
        self._server = server
        self._free: list[Database] = []

    @contextmanager
    def databases(self, number: int) -> Iterator[list[Database]]:
        """Lend some; what is written to them is removed afterwards."""
        taken = [self._free.pop() if self._free else self._server.create_database() for _ in range(number)]
        yield taken
        run_blocking(_clean(taken))
        self._free += taken


async def _clean(databases: list[Database]) -> None:
    for database in databases:
        connection = await asyncpg.connect(**database.connect_args)
        try:
            await connection.execute(_CLEAN)
        finally:
            await connection.close()
