"""Connections of a mover to shards, kept warm, and what their errors mean.

A step takes a connection for itself and gives it back. One that broke, or whose step was cancelled, is not used again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.errors import DenizenError, Unavailable
from denizen.events.lanes import BROKEN, PASSING
from denizen.events.store import connect
from denizen.moving.errors import BY_CODE, MoveRefused, NoRoom
from denizen.sharding.ids import ShardId

REFUSED: Final = "DM001"  # the SQLSTATE of 0003_moves.sql
_SESSION: Final = {"application_name": "denizen mover", "idle_in_transaction_session_timeout": "60s"}
Statements = Sequence[tuple[str, tuple[Any, ...]]]
ConnectArgs = Callable[[ShardId], Mapping[str, Any]]
"""The arguments of `asyncpg.connect` for a shard; `Unavailable` for one that is not known here."""


class Servers:
    """The shards, for the steps of moves. `warm`: statements that every new connection prepares by doing them."""

    def __init__(self, connect_args: ConnectArgs, warm: Statements = ()) -> None:
        self.connect_args = connect_args
        self._warm = warm
        self._free: dict[ShardId, list[asyncpg.Connection]] = {}

    @asynccontextmanager
    async def connection(self, shard: ShardId) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the shard, alone; errors of the server come out as `DenizenError`."""
        with meaning(shard):
            connection = await self._take(shard)
            try:
                yield connection
            except asyncpg.PostgresError:
                self._give(shard, connection)
                raise
            except BaseException:
                connection.terminate()
                raise
            self._give(shard, connection)

    async def close(self) -> None:
        """Close every connection that is not in use."""
        free, self._free = self._free, {}
        for connection in (each for group in free.values() for each in group):
            try:
                await connection.close(timeout=limits.close_deadline_s)
            except (*BROKEN, asyncpg.PostgresError):
                connection.terminate()

    async def _take(self, shard: ShardId) -> asyncpg.Connection:
        free = self._free.setdefault(shard, [])
        while free:
            connection = free.pop()
            if not connection.is_closed():
                return connection
        connection = await open_connection(self.connect_args(shard))
        for statement, arguments in self._warm:
            await connection.fetch(statement, *arguments)
        return connection

    def _give(self, shard: ShardId, connection: asyncpg.Connection) -> None:
        free = self._free.setdefault(shard, [])
        if connection.is_closed() or connection.is_in_transaction() or len(free) >= limits.move_connections_per_shard:
            connection.terminate()
        else:
            free.append(connection)


@asynccontextmanager
async def transaction(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """A transaction of a step. Who is cut off waits for no rollback, which a server that stands still would not do: the
    connection ends, and the transaction with it.
    """
    begun = connection.transaction()
    await begun.start()
    try:
        yield
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except BaseException:
        await begun.rollback()
        raise
    await begun.commit()


async def open_connection(connect_args: Mapping[str, Any], *, durable: bool = True) -> asyncpg.Connection:
    """A connection for the steps of moves; errors as asyncpg gives them.

    Not `durable`: its commits are, with the next one that is. For slices, which a crash may take back to the head that
    is then there; the end of the copy is durable, and so is everything before it.
    """
    settings = connect_args.get("server_settings", {}) | _SESSION
    if not durable:
        settings |= {"synchronous_commit": "off"}
    return await connect(dict(connect_args) | {"server_settings": settings})


@contextmanager
def meaning(shard: ShardId) -> Iterator[None]:
    """Raise what a server says as the `DenizenError` that it means."""
    try:
        yield
    except DenizenError:
        raise
    except asyncpg.PostgresError as error:
        raise _meaning_of(shard, error) from error
    except (*BROKEN, asyncio.IncompleteReadError) as error:
        raise Unavailable(f"shard {shard} does not answer; it may or may not have done the step") from error


def _meaning_of(shard: ShardId, error: asyncpg.PostgresError) -> DenizenError:
    if error.sqlstate == REFUSED:
        return BY_CODE[error.detail](f"shard {shard}: {error}", shard=shard)
    if isinstance(error, asyncpg.DiskFullError):
        return NoRoom(f"the disk of shard {shard} is full", shard=shard)
    if isinstance(error, (*PASSING, *BROKEN)):
        return Unavailable(f"shard {shard} did not do the step in time: {type(error).__name__}")
    return MoveRefused(f"shard {shard} refused the step: {error.sqlstate} {error}", shard=shard)
