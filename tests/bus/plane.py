"""The event plane in one process, over real servers: a shard or more, its relays, a bus, and who appends."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from denizen.bus.feed import EventFeed
from denizen.bus.hints import Hinter
from denizen.bus.listening import listen_for_hints
from denizen.bus.relay import Relay
from denizen.bus.rush import Rush
from denizen.bus.server import NatsServer
from denizen.bus.settings import BusSettings
from denizen.bus.tasks import end_tasks
from denizen.events.records import NO_STREAM, Append, NameAction, Outcome, Result
from denizen.events.store import ShardStore, connect
from denizen.events.stores import ShardStores
from denizen.service.router import Router
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, mint_user_id
from denizen.testing.gateway import provision_all
from denizen.testing.maps import FixedMap
from denizen.testing.postgres import Database
from denizen.users.events import UserRegistered
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import Status, User

EPOCH = Epoch(1)
ALL = {Bucket(bucket): 0 for bucket in range(BUCKETS)}
_numbers = itertools.count(1)


def registration(bucket: int) -> Append:
    """A new user of this bucket."""
    number = next(_numbers)
    home = Bucket(bucket)
    user_id = mint_user_id(home, 1_700_000_000_000)
    value = f"user{number}@example.com"
    return Append(
        bucket=home,
        stream=user_id,
        expected=NO_STREAM,
        command_id=mint_user_id(home, number),
        events=(UserRegistered(email=value, display_name=f"n{number}"),),
        actor="key:test",
        state=User(Status.ACTIVE, email=value, display_name=f"n{number}"),
        names=(NameAction("claim", LoginName(LoginNameKind.EMAIL, value), user_id),),
    )


class Plane:
    """Shards over databases, with a router; relays and feeds are started as a test needs them."""

    def __init__(self, databases: Sequence[Database], bucket_map: BucketMap, nats: NatsServer) -> None:
        self.databases = dict(zip(bucket_map.shards, databases, strict=True))
        self.nats = nats
        self.bus: BusSettings = nats.settings()
        self.hinter = Hinter(self.bus)
        stores = ShardStores(
            {shard: database.connect_args for shard, database in self.databases.items()},
            lambda shard, where: ShardStore(shard, where, 2, self.hinter.of(shard)),
        )
        self.router = Router(FixedMap(bucket_map), stores, 7)
        self.relays: dict[Relay, asyncio.Task[None]] = {}
        self._listening: list[asyncio.Task[None]] = []

    def start_relays(self, rush: Rush | None = None) -> None:
        """Run one relay for each shard."""
        rush = rush or Rush()
        for shard, database in self.databases.items():
            relay = Relay(shard, database.connect_args, self.bus, rush)
            self.relays[relay] = asyncio.create_task(relay.run())
            self._listening.append(asyncio.create_task(listen_for_hints(self.bus, rush, {shard: relay.hear})))

    async def stop_relays(self) -> None:
        """End every relay."""
        await end_tasks([*self.relays.values(), *self._listening])
        self._listening.clear()
        self.relays.clear()

    def feed(self, starts: Mapping[Bucket, int] = ALL, *, bus: bool = True) -> EventFeed:
        """A feed over this plane."""
        return EventFeed(self.bus if bus else None, self.router, starts, name="test")

    async def append(self, count: int, *, buckets: Sequence[int] | None = None) -> None:
        """Commit that many registrations, over these buckets in turn (default: over many)."""
        chosen = buckets or range(0, BUCKETS, 41)
        appends = [registration(chosen[number % len(chosen)]) for number in range(count)]
        outcomes: list[Outcome] = await asyncio.gather(*(self.router.append(append) for append in appends))
        assert {outcome.result for outcome in outcomes} == {Result.DONE}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the first shard."""
        connection = await connect(next(iter(self.databases.values())).connect_args)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def running_plane(databases: Sequence[Database], nats: NatsServer) -> AsyncIterator[Plane]:
    plane = Plane(databases, await provision_all(databases), nats)
    await plane.router.start()
    plane.hinter.start()
    try:
        yield plane
    finally:
        await plane.stop_relays()
        await plane.hinter.stop()
        await plane.router.stop()
