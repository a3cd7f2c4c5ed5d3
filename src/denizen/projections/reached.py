"""Whether every read model has come to a position."""

from typing import Final

import asyncpg

from denizen.sharding.ids import Position

_ALL: Final = """
    select coalesce(bool_and(denizen_read.checkpoint(projection, version, $1) >= $2), false)
    from denizen_read.projections
"""


async def all_have(connection: asyncpg.Connection, position: Position) -> bool:
    """Whether every version of every projection, live or not, has applied this position."""
    return bool(await connection.fetchval(_ALL, position.bucket, int(position.sequence)))
