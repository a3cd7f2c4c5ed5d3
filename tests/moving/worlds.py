"""A world of two shards in which one bucket after the other moves, as the control plane would have it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from msgspec.structs import replace

from denizen.events.provisioning import provision
from denizen.moving.move import Copied, Move, Verdict
from denizen.moving.mover import Mover
from denizen.service import Context, Written
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId
from denizen.testing.gateway import DEPLOYMENT, KINDS, SEED
from denizen.testing.postgres import Database, ThrowawayServer
from denizen.users.commands import Registration
from denizen.users.login_names import LoginName, LoginNameKind, login_name

BY = Context("key:test")
S1, S2 = ShardId("s1"), ShardId("s2")
TABLES = ("events", "users", "login_names", "login_names_unsettled", "idempotency", "cancelled_commands", "buckets")


def nothing(copied: Copied) -> None:
    """Progress that nobody looks at."""


class Maps:
    """The source of maps: what the tests publish is pushed to gateways."""

    def __init__(self, first: BucketMap) -> None:
        self._map = first
        self._news = asyncio.Event()

    async def current(self) -> BucketMap:
        return self._map

    async def newer_than(self, version: int) -> BucketMap:
        while self._map.version <= version:
            await self._news.wait()
        return self._map

    def publish(self, bucket: Bucket, owner: ShardId, epoch: int) -> None:
        """The bucket is at this shard now, at this epoch."""
        owners, epochs = list(self._map.owners), list(self._map.epochs)
        owners[bucket], epochs[bucket] = self._map.shards.index(owner), epoch
        self._map = replace(self._map, version=self._map.version + 1, owners=tuple(owners), epochs=tuple(epochs))
        self._news.set()
        self._news = asyncio.Event()


class World:
    """Two shards; `gateway` serves over them."""

    def __init__(self, servers: tuple[ThrowawayServer, ThrowawayServer], databases: dict[ShardId, Database]) -> None:
        self.servers = dict(zip((S1, S2), servers, strict=True))
        self.databases = databases
        self.maps = Maps(BucketMap(1, (S1, S2), (0,) * BUCKETS, (1,) * BUCKETS))
        self.gateway = Gateway(
            {shard: database.connect_args for shard, database in databases.items()},
            self.maps,
            SEED,
            KINDS,
            sweep_grace_s=60.0,
        )

    def connect_args(self, shard: ShardId) -> dict[str, Any]:
        return self.databases[shard].connect_args

    @asynccontextmanager
    async def sql(self, shard: ShardId) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the test's own."""
        connection = await asyncpg.connect(**self.connect_args(shard))
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, shard: ShardId, statement: str, *arguments: Any) -> Any:
        """Run one statement; the first value that it gives."""
        async with self.sql(shard) as connection:
            return await connection.fetchval(statement, *arguments)

    async def rows(self, shard: ShardId, bucket: Bucket) -> dict[str, int]:
        """How many rows each table of a shard has of a bucket."""
        async with self.sql(shard) as connection:
            return {
                table: count
                for table in TABLES
                if (
                    count := await connection.fetchval(
                        f"select count(*) from denizen.{table} where bucket = $1",  # noqa: S608
                        bucket,
                    )
                )
            }

    async def state(self, shard: ShardId, bucket: Bucket) -> tuple[str, int] | None:
        """The state and the epoch of a bucket's row."""
        async with self.sql(shard) as connection:
            row = await connection.fetchrow("select state, epoch from denizen.buckets where bucket = $1", bucket)
            return None if row is None else (row["state"], row["epoch"])

    def move(self, bucket: Bucket, source: ShardId = S1, target: ShardId = S2, attempt: int = 1) -> Move:
        """A new move at the map's epoch."""
        return Move(uuid4(), attempt, bucket, source, target, self.gateway.router.epoch_of(bucket))

    async def register(self, bucket: Bucket, count: int, prefix: str = "user", **more: Any) -> list[Written]:
        """Users whose ids are in the bucket, and whose usernames are anywhere."""
        names = (f"{prefix}{number}@example.com" for number in range(100_000_000))
        chosen = (name for name in names if self.gateway.router.bucket_of_name(email(name)) == bucket)
        registrations = [
            Registration(email=name, username=name.replace("@", "-at-"), **more)
            for name, _ in zip(chosen, range(count), strict=False)
        ]
        written = await asyncio.gather(*(self.gateway.users.register(each, BY) for each in registrations))
        await self.gateway.names.drain()
        return written

    async def to_fence(self, mover: Mover, move: Move) -> None:
        """Everything before the fence."""
        await mover.prepare(move)
        await mover.copy(move, nothing)
        await mover.tail(move)

    async def commit(self, mover: Mover, move: Move) -> None:
        """From the fence to the published map."""
        fence = Epoch(move.epoch + 1)
        await mover.fence(move, fence)
        verification = await mover.finish(move, fence)
        assert verification.verdict is Verdict.EQUAL, verification
        await mover.open(move, Epoch(fence + 1))
        self.maps.publish(move.bucket, move.target, fence + 1)
        await mover.close(move, Epoch(fence + 1))

    async def run(self, mover: Mover, move: Move, *, clean: bool = True) -> None:
        """A whole move."""
        await self.to_fence(mover, move)
        await self.commit(mover, move)
        if clean:
            await mover.clean(move)


@asynccontextmanager
async def arranged(servers: tuple[ThrowawayServer, ThrowawayServer]) -> AsyncIterator[World]:
    """A world with a database of its own on each server."""
    databases = dict(zip((S1, S2), (server.create_database() for server in servers), strict=True))
    for shard, database in databases.items():
        connection = await asyncpg.connect(**database.connect_args)
        try:
            await provision(connection, DEPLOYMENT, shard, list(range(BUCKETS)) if shard == S1 else [])  # type: ignore[arg-type]
        finally:
            await connection.close()
    world = World(servers, databases)
    try:
        async with world.gateway:
            yield world
    finally:
        for server, database in zip(servers, databases.values(), strict=True):
            server.drop_database(database)


def email(value: str) -> LoginName:
    return login_name(LoginNameKind.EMAIL, value)


def username(value: str) -> LoginName:
    return login_name(LoginNameKind.USERNAME, value)
