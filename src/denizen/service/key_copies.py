"""The rows of API keys as they lie on the shards. Every shard keeps all of them, so that no shard is special.

A key never changes but for its revocation, which is never taken back. So copies are merged without any order of
writes: what one of them has, all get, and a key is revoked if one of them says so.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct, structs

from denizen.events.store import connect

_COLUMNS: Final = "id, name, secret_hash, scopes, rate_per_s, created_at, revoked_at"
_READ: Final = f"select {_COLUMNS} from denizen.api_keys"  # noqa: S608 - a constant
_MERGE: Final = f"""
    insert into denizen.api_keys as known ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (id) do update set revoked_at = excluded.revoked_at
    where known.revoked_at is null and excluded.revoked_at is not null
"""  # noqa: S608 - constants


class KeyRow(Struct, frozen=True):
    """A key as it is kept: the secret only as a hash."""

    id: str
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    rate_per_s: int | None
    created_at: datetime
    revoked_at: datetime | None = None


Rows = Mapping[str, KeyRow]


async def read_keys(connection: asyncpg.Connection) -> dict[str, KeyRow]:
    """All keys of a shard, by id."""
    return {row["id"]: _row(row) for row in await connection.fetch(_READ)}


async def write_keys(connection: asyncpg.Connection, rows: Iterable[KeyRow]) -> None:
    """Bring these keys to a shard; what it has stays, and revocations are added."""
    await connection.executemany(_MERGE, [structs.astuple(row) for row in rows])


def merged(copies: Iterable[Rows]) -> dict[str, KeyRow]:
    """All keys of all copies, each revoked if one of them says so."""
    union: dict[str, KeyRow] = {}
    for copy in copies:
        for identifier, row in copy.items():
            known = union.get(identifier)
            if known is None or (known.revoked_at is None and row.revoked_at is not None):
                union[identifier] = row
    return union


def missing(copy: Rows, union: Rows) -> list[KeyRow]:
    """What this copy lacks of the union."""
    return [
        row
        for identifier, row in union.items()
        if identifier not in copy or (row.revoked_at is not None and copy[identifier].revoked_at is None)
    ]


async def copy_keys(source: dict[str, Any], targets: Iterable[dict[str, Any]]) -> None:
    """Bring all keys of one shard to others (given by their arguments of `asyncpg.connect`)."""
    connection = await connect(source)
    try:
        rows = await read_keys(connection)
    finally:
        await connection.close()

    async def bring(arguments: dict[str, Any]) -> None:
        connection = await connect(arguments)
        try:
            await write_keys(connection, rows.values())
        finally:
            await connection.close()

    await asyncio.gather(*map(bring, targets))


def _row(row: asyncpg.Record) -> KeyRow:
    revoked = row["revoked_at"]
    return KeyRow(
        row["id"],
        row["name"],
        row["secret_hash"],
        tuple(row["scopes"]),
        row["rate_per_s"],
        row["created_at"].astimezone(UTC),
        revoked.astimezone(UTC) if revoked else None,
    )
