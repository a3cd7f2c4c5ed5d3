"""Whether every read model has applied an event of a user."""

from typing import Final
from uuid import UUID

import asyncpg

from denizen.sharding.ids import Position

_ALL: Final = """
    select coalesce(bool_and(denizen_read.checkpoint(projection, version, $1) >= $2), false)
           and not exists (select from denizen_read.parked where stream = $3)
    from denizen_read.projections
"""


async def all_have(connection: asyncpg.Connection, user_id: UUID, position: Position) -> bool:
    """Whether every version of every projection, live or not, has applied this position, and parks the user nowhere."""
    return bool(await connection.fetchval(_ALL, position.bucket, int(position.sequence), user_id))
