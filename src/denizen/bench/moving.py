"""How fast buckets are copied, folded and compared, and how long each is fenced, between two PostgreSQL servers.

Sign-ups fill some buckets of one server: three events each, for the second login name is in another bucket. Then all of
them move to the other server, a few at a time, with nothing else going on. What a fence costs under load is measured by
`denizen bench rebalance`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from statistics import median, quantiles
from uuid import uuid4

import asyncpg
from msgspec import Struct

from denizen.errors import BadConfiguration
from denizen.events import sealing
from denizen.events.provisioning import provision
from denizen.invariants import invariant
from denizen.moving.move import Move, Verdict
from denizen.moving.mover import Mover
from denizen.service import Context
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId
from denizen.testing.gateway import DEPLOYMENT, KEYRING, KINDS, SEED
from denizen.testing.maps import FixedMap
from denizen.testing.postgres import Database, ThrowawayServer
from denizen.users.commands import Registration
from denizen.users.login_names import LoginName, LoginNameKind, login_name

_S1, _S2 = ShardId("s1"), ShardId("s2")
_BATCH = 200


class Moved(Struct, frozen=True):
    """What was measured. Times in seconds; `fenced` is from before the fence to after the opening, of each bucket."""

    buckets: int
    users: int
    events: int
    mebibytes: float
    copy_s: float
    events_per_s: float
    fenced_p50_ms: float
    fenced_p99_ms: float


async def measure(servers: Sequence[ThrowawayServer], users: int, buckets: int, at_a_time: int) -> Moved:
    """Fill, move, measure."""
    sealing.use(KEYRING)
    if not 0 < buckets <= BUCKETS:
        raise BadConfiguration(f"1 to {BUCKETS} buckets can move")
    chosen = [Bucket(number) for number in range(buckets)]
    databases = {_S1: servers[0].create_database(), _S2: servers[1].create_database()}
    async with _shards(databases) as gateway:
        await _fill(gateway, chosen, users)
    async with Mover(lambda shard: databases[shard].connect_args, SEED, KINDS) as mover:
        return await _move_all(mover, databases, chosen, users, at_a_time)


async def _move_all(
    mover: Mover, databases: dict[ShardId, Database], chosen: Sequence[Bucket], users: int, at_a_time: int
) -> Moved:
    places, fenced, size = asyncio.Semaphore(at_a_time), [], 0

    async def one(bucket: Bucket) -> int:
        nonlocal size
        move = Move(uuid4(), 1, bucket, _S1, _S2, Epoch(1))
        async with places:
            await mover.prepare(move)
            copied = await mover.copy(move, lambda _: None)
            size += copied.bytes
            await mover.tail(move)
            began = time.monotonic()
            await mover.fence(move, Epoch(2))
            verification = await mover.finish(move, Epoch(2))
            invariant(verification.verdict is Verdict.EQUAL, "a moved bucket is equal", found=verification.differences)
            await mover.open(move, Epoch(3))
            fenced.append(time.monotonic() - began)
            await mover.close(move, Epoch(3))
        return verification.head.sequence

    await mover.warm()
    began = time.monotonic()
    events = sum(await asyncio.gather(*map(one, chosen)))
    seconds = time.monotonic() - began
    return Moved(
        len(chosen),
        users,
        events,
        round(size / (1 << 20), 1),
        round(seconds, 2),
        round(events / seconds),
        round(median(fenced) * 1000, 1),
        round(quantiles(fenced, n=100)[98] * 1000, 1),
    )


@asynccontextmanager
async def _shards(databases: dict[ShardId, Database]) -> AsyncIterator[Gateway]:
    for shard, database in databases.items():
        connection = await asyncpg.connect(**database.connect_args)
        try:
            buckets = [Bucket(number) for number in range(BUCKETS)] if shard == _S1 else []
            await provision(connection, DEPLOYMENT, shard, buckets)
        finally:
            await connection.close()
    source = FixedMap(BucketMap(1, (_S1, _S2), (0,) * BUCKETS, (1,) * BUCKETS))
    arguments = {shard: database.connect_args for shard, database in databases.items()}
    async with Gateway(arguments, source, SEED, KINDS) as gateway:
        yield gateway


async def _fill(gateway: Gateway, chosen: Sequence[Bucket], users: int) -> None:
    """Sign-ups whose login names are all in the chosen buckets."""
    emails = _names(gateway, LoginNameKind.EMAIL, "person{}@example.com", chosen)
    usernames = _names(gateway, LoginNameKind.USERNAME, "person{}", chosen)
    context = Context("bench")

    async def batch(size: int) -> None:
        people = [Registration(email=next(emails), username=next(usernames), country="DE") for _ in range(size)]
        outcomes = await gateway.users.register_many(people, [context] * size)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        invariant(not failures, "everybody is signed up", failures=failures[:3])

    for start in range(0, users, _BATCH * 4):
        sizes = [min(_BATCH, users - at) for at in range(start, min(start + _BATCH * 4, users), _BATCH)]
        await asyncio.gather(*map(batch, sizes))
    await gateway.names.drain()


def _names(gateway: Gateway, kind: LoginNameKind, form: str, chosen: Sequence[Bucket]) -> Iterator[str]:
    among = frozenset(chosen)
    for number in count():
        name: LoginName = login_name(kind, form.format(number))
        if gateway.router.bucket_of_name(name) in among:
            yield name.value
