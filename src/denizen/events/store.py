"""The event store of one shard: its lanes and its connections.

Writes go over lanes by bucket, look-ups over lanes of their own, longer reads over a small pool. Every connection has
the same settings: plans that use indexes whatever the planner has seen of young tables, bounded waits for locks, full
durability even if the server's default is less.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg

from denizen import limits
from denizen.errors import Unavailable
from denizen.events.appending import Appended, AppendWork, Write
from denizen.events.lanes import BROKEN, PASSING, Lane
from denizen.events.reading import NameLookUp, UserLookUp
from denizen.events.records import Append, NameRecord, Outcome, StoredUser
from denizen.sharding.ids import Bucket, Epoch, ShardId, UserId
from denizen.users.login_names import LoginName

Answer = TypeVar("Answer")

SESSION_SETTINGS: Final = {
    "application_name": "denizen",
    "timezone": "UTC",
    "jit": "off",
    "synchronous_commit": "on",
    "statement_timeout": str(limits.statement_timeout_ms),
    "lock_timeout": str(limits.lock_timeout_ms),
    "idle_in_transaction_session_timeout": str(limits.lock_timeout_ms),
    # Plans are made once for each connection, perhaps while the tables are still empty: always by index, never by scan.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


async def connect(arguments: dict[str, Any]) -> asyncpg.Connection:
    """A connection to a shard with the settings of this module; errors as asyncpg gives them."""
    settings = SESSION_SETTINGS | arguments.get("server_settings", {})
    return await asyncpg.connect(**arguments | {"server_settings": settings, "timeout": limits.read_deadline_s})


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool in order; by force if its connections do not come back."""
    try:
        await asyncio.wait_for(pool.close(), limits.close_deadline_s)
    except (*BROKEN, asyncpg.PostgresError):
        pool.terminate()


class ShardStore:
    """One shard, as a gateway uses it. Answers are futures, so that many can be awaited together."""

    def __init__(
        self,
        shard_id: ShardId,
        connect_args: dict[str, Any],
        lanes: int = limits.lanes_per_shard,
        appended: Appended | None = None,
    ) -> None:
        self.shard_id = shard_id
        self._connect_args = connect_args
        self._pool: asyncpg.Pool | None = None
        self._appends = [
            Lane[Write, Outcome](self._connect, AppendWork(appended), limits.append_queue_commands_max)
            for _ in range(lanes)
        ]
        self._users = Lane[UserId, "StoredUser | None"](self._connect, UserLookUp(), limits.read_queue_keys_max)
        self._names = Lane[tuple[Bucket, LoginName], "NameRecord | None"](
            self._connect, NameLookUp(), limits.read_queue_keys_max
        )

    async def start(self) -> None:
        """Open the lanes; connections are made when they are needed."""
        self._pool = await asyncpg.create_pool(  # makes no connection yet
            **self._connect_args
            | {"server_settings": SESSION_SETTINGS | self._connect_args.get("server_settings", {})},
            min_size=0,
            max_size=limits.reader_connections_per_shard,
            timeout=limits.read_deadline_s,
            command_timeout=limits.statement_timeout_ms / 1000 + limits.read_deadline_s,  # of a frozen server
        )
        for lane in self._lanes():
            lane.start()

    async def stop(self) -> None:
        """Finish what is queued and close every connection."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes()))
        if self._pool is not None:
            await close_pool(self._pool)

    def append(self, append: Append, epoch: Epoch) -> Awaitable[Outcome]:
        """Append in a group; the outcome, or `Overloaded`, `Unavailable`, `OutcomeUnknown`."""
        return self._appends[append.bucket % len(self._appends)].ask(Write(append, epoch))

    def user(self, user_id: UserId) -> "Awaitable[StoredUser | None]":
        """The user's row; `Moved` if the bucket is not here."""
        return self._users.ask(user_id)

    def name(self, bucket: Bucket, name: LoginName) -> "Awaitable[NameRecord | None]":
        """Who has this login name; `Moved` if the bucket is not here."""
        return self._names.ask((bucket, name))

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for longer reads; `Unavailable` if it breaks, is refused or takes too long."""
        if self._pool is None:
            raise Unavailable("this gateway is not started")
        try:
            async with self._pool.acquire(timeout=limits.read_deadline_s) as connection:
                yield connection
        except (*BROKEN, *PASSING) as error:
            raise Unavailable(f"shard {self.shard_id} does not answer") from error

    async def read(self, ask: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
        """Run one longer read, once more if the connection turns out to be broken."""
        try:
            async with self.reader() as connection:
                return await ask(connection)
        except Unavailable:
            async with self.reader() as connection:
                return await ask(connection)

    def depths(self) -> dict[str, int]:
        """Requests that wait, by kind of lane."""
        return {
            "append": sum(lane.depth for lane in self._appends),
            "users": self._users.depth,
            "names": self._names.depth,
        }

    def _lanes(self) -> list[Lane[Any, Any]]:
        return [*self._appends, self._users, self._names]

    async def _connect(self) -> asyncpg.Connection:
        return await connect(self._connect_args)
