"""Reading the read models: a pool of connections, and how fresh the answers are.

Readers take no locks of the projector and never wait for it, unless they ask to: a session that has written names its
position, and waits a bounded time until the model has it. Every answer says how fresh it is.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.errors import Overloaded, Unavailable
from denizen.events.lanes import BROKEN, PASSING
from denizen.events.store import close_pool
from denizen.projections.database import use_json
from denizen.sharding.ids import Position

_SETTINGS: Final = {
    "application_name": "denizen reader",
    "timezone": "UTC",
    "jit": "off",
    "statement_timeout": str(limits.search_statement_ms),
    "default_transaction_read_only": "on",
    # The best plan depends on the values: a prefix of one letter is not one of ten.
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "enable_memoize": "off",  # no search looks for the same user twice
}
_FRESHNESS: Final = """
    select p.as_of, p.lag_events, p.at, clock_timestamp()
    from denizen_read.projections v left join denizen_read.progress p using (projection, version)
    where v.projection = $1 and v.live
"""
_REACHED: Final = """
    select coalesce(bool_and(denizen_read.checkpoint(v.projection, v.version, wanted.bucket) >= wanted.sequence), false)
    from denizen_read.projections v, unnest($2::smallint[], $3::bigint[]) as wanted (bucket, sequence)
    where v.projection = $1 and v.live
"""


class Freshness(Struct, frozen=True):
    """Everything committed until `as_of` is in the model; None: nobody knows. `lag_events` were waiting then."""

    as_of: datetime | None
    lag_events: int | None


class ReadModels:
    """The read database, as a gateway uses it. Connections are made when they are needed."""

    def __init__(self, connect_args: Mapping[str, Any], connections: int = limits.read_connections) -> None:
        self.connect_args = connect_args
        self._connections = connections
        self._pool: asyncpg.Pool | None = None
        self._long = 0  # searches that are long or wait to be
        self._long_turn = asyncio.Lock()

    async def start(self) -> None:
        """Open the pool; nothing is connected yet."""
        self._pool = await asyncpg.create_pool(
            **{**self.connect_args, "server_settings": _SETTINGS | self.connect_args.get("server_settings", {})},
            min_size=0,
            max_size=self._connections,
            init=use_json,
            timeout=limits.read_deadline_s,
            command_timeout=limits.search_statement_ms / 1000 + limits.read_deadline_s,
        )

    async def stop(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await close_pool(self._pool)

    async def __aenter__(self) -> "ReadModels":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection; `Unavailable` if the read database does not answer, or not in time."""
        if self._pool is None:
            raise Unavailable("the read models are not started")
        try:
            async with self._pool.acquire(timeout=limits.read_deadline_s) as connection:
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise Unavailable("the read models do not answer in time") from error
        except (*BROKEN, *PASSING) as error:
            raise Unavailable("the read models do not answer") from error
        except (asyncpg.UndefinedTableError, asyncpg.InvalidCatalogNameError) as error:
            raise Unavailable("the read models are not made yet: the projector has not run") from error

    @asynccontextmanager
    async def long_search(self) -> AsyncIterator[None]:
        """The turn of a search that may take long: one has it at a time, so that it takes one processor at most.

        `Overloaded` if half of the connections are with such searches: the other half is for those that are quick.
        """
        if self._long >= self._connections // 2:
            raise Overloaded("too many long searches wait")
        self._long += 1
        try:
            async with self._long_turn:
                yield
        finally:
            self._long -= 1

    async def freshness(self, connection: asyncpg.Connection, projection: str) -> Freshness:
        """How fresh the live version is."""
        row = await connection.fetchrow(_FRESHNESS, projection)
        return Freshness(None, None) if row is None else Freshness(row["as_of"], row["lag_events"])

    async def wait_for(self, projection: str, positions: Sequence[Position], seconds: float) -> bool:
        """Wait until the live version has all these positions, at most `seconds`; whether it has."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = limits.position_poll_s_min
        wanted: dict[int, int] = {}
        for position in positions:
            wanted[position.bucket] = max(position.sequence, wanted.get(position.bucket, 0))
        while True:
            async with self.reader() as connection:
                if await connection.fetchval(_REACHED, projection, list(wanted), list(wanted.values())):
                    return True
            if loop.time() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, limits.position_poll_s_max)
