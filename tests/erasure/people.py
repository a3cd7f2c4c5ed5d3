"""A user with a history that tells a lot, and the search for any trace of it in a shard's tables."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg

from denizen.service import Context, Written
from denizen.service.gateway import Gateway
from denizen.testing.postgres import Database
from denizen.users.commands import NamePatch, Registration, UserPatch
from denizen.users.state import Name

BY = Context("key:tests")


class Person:
    """Somebody whose every datum holds one mark, so that a search for the mark finds all of them."""

    def __init__(self, user_id: UUID, mark: str, version: int) -> None:
        self.id, self.mark, self.version = user_id, mark, version


async def somebody(gateway: Gateway, mark: str | None = None) -> Person:
    """Register somebody, then change every part, so that there are former names here and elsewhere."""
    mark = mark or f"m{uuid4().hex[:12]}"
    registration = Registration(
        email=f"{mark}@example.com", username=f"{mark}u", name=Name(mark, mark), attributes={mark: mark}
    )
    written = await gateway.users.register(registration, BY)
    user_id = written.user.id
    patches = [
        UserPatch(email=f"{mark}.second@example.com"),
        UserPatch(username=f"{mark}v"),
        UserPatch(display_name=f"The {mark}", name=NamePatch(given=f"{mark}g")),
        UserPatch(attributes={"note": f"about {mark}"}),
        UserPatch(username=f"{mark}w"),
    ]
    for patch in patches:
        written = await gateway.users.change(user_id, patch, context=BY)
    await gateway.users.suspend(user_id, f"because of {mark}", context=BY)
    written = await gateway.users.reactivate(user_id, f"{mark} again", context=BY)
    await gateway.names.drain()
    return Person(user_id, mark, written.user.version)


async def traces(databases: list[Database], mark: str) -> list[str]:
    """Where the mark stands in a table, in any text or bytes."""
    found = []
    for database in databases:
        connection = await asyncpg.connect(**database.connect_args)
        try:
            for table in await connection.fetch("select tablename from pg_tables where schemaname = 'denizen'"):
                name = table["tablename"]
                for row in await connection.fetch(f"select * from denizen.{name}"):  # noqa: S608
                    if any(_has(value, mark) for value in row.values()):
                        found.append(str(name))  # noqa: PERF401
        finally:
            await connection.close()
    return found


async def secrets_of(databases: list[Database], user_id: UUID) -> list[bytes]:
    """The secrets that are left of a user's stream."""
    found: list[bytes] = []
    for database in databases:
        connection = await asyncpg.connect(**database.connect_args)
        try:
            rows = await connection.fetch(
                "select secret from denizen.events where stream = $1 and secret is not null", user_id
            )
            found += [row["secret"] for row in rows]
        finally:
            await connection.close()
    return found


def _has(value: Any, mark: str) -> bool:
    if isinstance(value, str):
        return mark in value
    return isinstance(value, bytes) and mark.encode() in value


__all__ = ["BY", "Person", "Written", "secrets_of", "somebody", "traces"]
