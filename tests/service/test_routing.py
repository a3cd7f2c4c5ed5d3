"""Stale maps, fenced buckets, shards that are gone: what a gateway believes never harms the data."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from denizen.errors import BadDeployment, Moved, Overloaded, Unavailable, UserNotFound
from denizen.events.appending import AppendWork
from denizen.events.provisioning import provision
from denizen.events.store import ShardStore
from denizen.service.gateway import Gateway
from denizen.service.sweeper import Sweeper
from denizen.sharding.bucket_map import BucketMap, initial_map
from denizen.sharding.ids import Bucket, Epoch, ShardId, bucket_of
from denizen.testing.consistency import assert_consistent
from denizen.testing.gateway import DEPLOYMENT, KINDS, SEED, provision_all
from denizen.testing.postgres import Database
from denizen.testing.proxy import proxied
from denizen.users.commands import Registration, UserPatch

from .worlds import BY, Crash, Crashing, World, ann, email, sweep, username

S1, S2 = ShardId("s1"), ShardId("s2")
NOWHERE = {"host": "127.0.0.1", "port": 1, "user": "denizen", "database": "denizen", "ssl": False}


class Maps:
    """A source whose map the test sets; it never tells of a new one by itself."""

    def __init__(self, first: BucketMap) -> None:
        self.newest: BucketMap | None = first

    async def current(self) -> BucketMap:
        if self.newest is None:
            raise BadDeployment("the map cannot be read")
        return self.newest

    async def newer_than(self, version: int) -> BucketMap:
        await asyncio.Event().wait()
        raise AssertionError


@asynccontextmanager
async def mapped(world: World, **lost: dict[str, Any]) -> AsyncIterator[tuple[Gateway, Maps]]:
    """A gateway over two shards and its source of maps; `s2=NOWHERE` puts a shard out of reach."""
    maps = Maps(await provision_all(world.databases))
    shards = {S1: world.databases[0].connect_args, S2: world.databases[1].connect_args}
    shards |= {ShardId(shard): arguments for shard, arguments in lost.items()}
    async with Gateway(shards, maps, SEED, KINDS, sweep_grace_s=60.0) as gateway:
        yield gateway, maps


def moved_to(bucket_map: BucketMap, bucket: Bucket, owner: int) -> BucketMap:
    owners, epochs = list(bucket_map.owners), list(bucket_map.epochs)
    owners[bucket], epochs[bucket] = owner, epochs[bucket] + 1
    return replace(bucket_map, version=bucket_map.version + 1, owners=tuple(owners), epochs=tuple(epochs))


async def sql(store: ShardStore, statement: str, *arguments: Any) -> None:
    async def ask(connection: asyncpg.Connection) -> None:
        await connection.execute(statement, *arguments)

    await store.read(ask)


async def move(gateway: Gateway, bucket: Bucket) -> int:
    """An empty bucket goes to the other shard, at the next epoch; the index of that one."""
    owner = gateway.router.map.owners[bucket]
    stores = list(gateway.router.stores.values())
    await sql(stores[owner], "update denizen.buckets set state = 'moved', epoch = 2 where bucket = $1", bucket)
    await sql(stores[1 - owner], "insert into denizen.buckets (bucket, epoch, state) values ($1, 2, 'open')", bucket)
    return 1 - owner


def bucket_of_ann(gateway: Gateway) -> Bucket:
    return gateway.router.bucket_of_name(email("ann@example.com"))


async def test_a_stale_map_is_corrected_by_the_shards_answer(world: World) -> None:
    async with mapped(world) as (gateway, maps):
        bucket = bucket_of_ann(gateway)
        owner = await move(gateway, bucket)
        assert maps.newest is not None
        maps.newest = moved_to(maps.newest, bucket, owner)
        assert gateway.router.map.version == 1
        written = await ann(gateway)
        assert gateway.router.map.version == 2
        assert bucket_of(written.user.id) == bucket
        await sweep(gateway)
        await assert_consistent(gateway)


async def test_reads_follow_a_moved_bucket_too(world: World) -> None:
    asks: list[Callable[[Gateway], Awaitable[Any]]] = [
        lambda gateway: gateway.users.find(email("ann@example.com")),
        lambda gateway: gateway.users.get(_id(gateway)),
        lambda gateway: gateway.users.history(_id(gateway)),
    ]
    for ask in asks:
        async with mapped(world) as (gateway, maps):
            bucket = bucket_of_ann(gateway)
            if gateway.router.map.version == 1:
                owner = 1 - gateway.router.map.owners[bucket]
                await sql(
                    gateway.router.store_of(bucket),
                    "update denizen.buckets set state = 'moved' where bucket = $1",
                    bucket,
                )
                assert maps.newest is not None
                target = list(gateway.router.stores.values())[owner]
                await sql(
                    target,
                    "insert into denizen.buckets (bucket, epoch, state) values ($1, 2, 'open') on conflict do nothing",
                    bucket,
                )
                maps.newest = moved_to(maps.newest, bucket, owner)
            with pytest.raises(UserNotFound):
                await ask(gateway)
            assert gateway.router.map.version == 2


def _id(gateway: Gateway) -> Any:
    from denizen.sharding.ids import mint_user_id

    return mint_user_id(bucket_of_ann(gateway), 0)


async def test_without_a_newer_map_the_shards_tell_where_a_bucket_went(world: World) -> None:
    async with mapped(world) as (gateway, maps):
        bucket = bucket_of_ann(gateway)
        old = gateway.router.map
        owner = await move(gateway, bucket)
        maps.newest = None  # it cannot even be read
        written = (await ann(gateway)).user
        assert bucket_of(written.id) == bucket
        for ask in (lambda: gateway.users.find(email("ann@example.com")), lambda: gateway.users.get(written.id)):
            gateway.router._map = old
            assert await ask() == written
            assert gateway.router.map.version == 1
            assert gateway.router.map.owners[bucket] == owner
            assert gateway.router.map.epoch_of(bucket) == Epoch(2)


async def test_what_shards_said_stays_until_a_map_is_newer(world: World) -> None:
    async with mapped(world) as (gateway, maps):
        bucket = bucket_of_ann(gateway)
        owner = await move(gateway, bucket)
        await ann(gateway)
        assert maps.newest is not None
        other = Bucket((bucket + 1) % 4096)
        maps.newest = moved_to(maps.newest, other, 1 - maps.newest.owners[other])  # says nothing of this bucket yet
        await gateway.router._refresh()
        assert gateway.router.map.version == 2
        assert gateway.router.map.owners[bucket] == owner
        maps.newest = moved_to(moved_to(maps.newest, bucket, owner), bucket, 1 - owner)
        await gateway.router._refresh()
        assert gateway.router.map.epoch_of(bucket) == Epoch(3)
        assert gateway.router.map.owners[bucket] == 1 - owner


async def test_a_bucket_that_nobody_serves_is_a_clear_error(world: World) -> None:
    async with mapped(world) as (gateway, _):
        bucket = bucket_of_ann(gateway)
        store = gateway.router.store_of(bucket)
        await sql(store, "update denizen.buckets set state = 'moved' where bucket = $1", bucket)
        with pytest.raises(Moved):
            await ann(gateway)
        with pytest.raises(Moved):
            await gateway.users.find(email("ann@example.com"))


async def test_a_new_shard_is_used_as_soon_as_the_map_names_it_and_a_removed_one_is_left(world: World) -> None:
    maps = Maps(initial_map([S1]))
    await provision_on(world.databases[0], S1, initial_map([S1]).buckets_of(S1))
    await provision_on(world.databases[1], S2, [])
    known = {S1: world.databases[0].connect_args}
    async with Gateway(lambda: known, maps, SEED, KINDS, sweep_grace_s=60.0) as gateway:
        assert list(gateway.router.stores) == [S1]
        first = await ann(gateway)
        bucket = bucket_of(first.user.id)
        elsewhere = Bucket((bucket + 1) % 4096)
        assert maps.newest is not None
        named = replace(maps.newest, version=2, shards=(S1, S2))
        maps.newest = named
        await gateway.router._refresh()
        assert list(gateway.router.stores) == [S1]  # nobody knows yet where it is
        known[S2] = world.databases[1].connect_args
        maps.newest = replace(moved_to(named, elsewhere, 1))
        await gateway.router._refresh()
        assert list(gateway.router.stores) == [S1, S2]
        await sql(
            gateway.router.stores[S2],
            "insert into denizen.buckets (bucket, epoch, state) values ($1, 2, 'open')",
            elsewhere,
        )
        await gateway.keys.create("a", ["admin"])
        everything = tuple(1 for _ in range(4096))
        maps.newest = BucketMap(4, (S2,), tuple(0 for _ in everything), tuple(2 for _ in everything))
        await gateway.router._refresh()
        assert list(gateway.router.stores) == [S2]
        assert [key.name for key in await gateway.keys.list()] == ["a"]


async def provision_on(database: Database, shard: ShardId, buckets: list[Bucket]) -> None:
    connection = await asyncpg.connect(**database.connect_args)
    try:
        await provision(connection, DEPLOYMENT, shard, buckets)
    finally:
        await connection.close()


async def test_held_writes_are_woken_by_the_map_and_ask_the_shards_one_question_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denizen.limits.hold_look_s_min", 5.0)  # only the map may wake them
    async with mapped(world) as (gateway, maps):
        bucket = bucket_of_ann(gateway)
        names = [value for value in (f"n{n}@example.com" for n in range(60_000)) if _lives(gateway, value, bucket)][:5]
        store = gateway.router.store_of(bucket)
        await sql(store, "update denizen.buckets set state = 'fenced', epoch = 2 where bucket = $1", bucket)
        held = [asyncio.create_task(gateway.users.register(Registration(email=name), BY)) for name in names]
        async with asyncio.timeout(5):
            while gateway.router.held < len(names):
                await asyncio.sleep(0.005)
        owner = await move(gateway, bucket)
        assert maps.newest is not None
        began = asyncio.get_running_loop().time()
        await gateway.router._use(moved_to(maps.newest, bucket, owner))
        written = await asyncio.gather(*held)
        assert asyncio.get_running_loop().time() - began < 1
        assert {bucket_of(one.user.id) for one in written} == {bucket}
        assert gateway.router.held == 0


def _lives(gateway: Gateway, value: str, bucket: Bucket) -> bool:
    return gateway.router.bucket_of_name(email(value)) == bucket


async def test_more_held_requests_than_the_bound_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denizen.limits.held_requests_max", 1)
    async with mapped(world) as (gateway, _):
        bucket = bucket_of_ann(gateway)
        names = [value for value in (f"n{n}@example.com" for n in range(60_000)) if _lives(gateway, value, bucket)][:2]
        store = gateway.router.store_of(bucket)
        await sql(store, "update denizen.buckets set state = 'fenced' where bucket = $1", bucket)
        held = [asyncio.create_task(gateway.users.register(Registration(email=name), BY)) for name in names]
        done, waiting = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(Overloaded):
            done.pop().result()
        await sql(store, "update denizen.buckets set state = 'open' where bucket = $1", bucket)
        await waiting.pop()


async def test_a_write_is_held_while_its_bucket_is_fenced_and_reads_go_on(world: World) -> None:
    async with mapped(world) as (gateway, _):
        written = await ann(gateway)
        await gateway.names.drain()
        bucket = bucket_of(written.user.id)
        store = gateway.router.store_of(bucket)
        await sql(store, "update denizen.buckets set state = 'fenced' where bucket = $1", bucket)
        held = asyncio.create_task(gateway.users.change(written.user.id, UserPatch(display_name="A"), context=BY))
        while gateway.router.stores[store.shard_id].depths()["append"]:
            await asyncio.sleep(0.001)
        for _ in range(10):
            assert await gateway.users.get(written.user.id) == written.user
            assert (await gateway.users.find(email("ann@example.com"))).version == 1
        assert len(await gateway.users.history(written.user.id)) == 1
        assert not held.done()
        await sql(store, "update denizen.buckets set state = 'open' where bucket = $1", bucket)
        assert (await held).user.version == 2


async def test_a_held_write_follows_its_bucket_to_the_new_owner(world: World) -> None:
    async with mapped(world) as (gateway, maps):
        bucket = bucket_of_ann(gateway)
        store = gateway.router.store_of(bucket)
        await sql(store, "update denizen.buckets set state = 'fenced', epoch = 2 where bucket = $1", bucket)
        held = asyncio.create_task(gateway.users.register(Registration(email="ann@example.com"), BY))
        await asyncio.sleep(0.03)
        assert not held.done()
        owner = await move(gateway, bucket)
        assert maps.newest is not None
        maps.newest = moved_to(maps.newest, bucket, owner)
        written = await held
        assert gateway.router.map.owners[bucket] == owner
        assert await gateway.users.get(written.user.id) == written.user


async def test_a_fence_that_stays_too_long_is_unavailable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denizen.limits.fence_hold_s", 0.1)
    async with mapped(world) as (gateway, _):
        written = await ann(gateway)
        await gateway.names.drain()
        bucket = bucket_of(written.user.id)
        await sql(
            gateway.router.store_of(bucket), "update denizen.buckets set state = 'fenced' where bucket = $1", bucket
        )
        with pytest.raises(Unavailable, match="moving"):
            await gateway.users.change(written.user.id, UserPatch(username="lee"), context=BY)
        await sql(
            gateway.router.store_of(bucket), "update denizen.buckets set state = 'open' where bucket = $1", bucket
        )
        await assert_consistent(gateway)  # what was reserved elsewhere has been given back


async def test_a_router_believes_the_shard_not_its_map(world: World) -> None:
    async with mapped(world) as (gateway, maps):
        assert maps.newest is not None
        bucket = bucket_of_ann(gateway)
        gateway.router._map = moved_to(maps.newest, bucket, 1 - maps.newest.owners[bucket])
        with pytest.raises(Moved):
            await ann(gateway)
        assert gateway.router.epoch_of(bucket) == Epoch(2)


async def test_answers_lost_at_commit_are_found_again_one_by_one_and_in_batches(world: World) -> None:
    await provision_all(world.databases)
    async with proxied(world.databases[0]) as (proxy, arguments), mapped(world, s1=arguments) as (gateway, _):
        for turn in range(3):
            names = [name_on(gateway, S1, email, f"t{turn}.{n}.{{}}@example.com") for n in range(20)]
            proxy.cut_next_reply = turn > 0  # at first the lane is not connected yet
            batch = [Registration(email=name) for name in names[:-1]]
            written = await gateway.users.register_many(batch, [BY] * len(batch))
            proxy.cut_next_reply = turn > 0
            written.append(await gateway.users.register(Registration(email=names[-1]), BY))
            assert [result.user.user.email for result in written] == names  # type: ignore[union-attr]
            assert not any(result.replayed for result in written)  # type: ignore[union-attr]
        assert proxy.replies_cut == 4
        await assert_consistent(gateway)


def name_on(gateway: Gateway, shard: ShardId, kind: Callable[[str], Any], pattern: str) -> str:
    """A login name that lives on this shard."""
    return next(
        value
        for value in (pattern.format(number) for number in range(1000))
        if gateway.router.map.shard_of(gateway.router.bucket_of_name(kind(value))) == shard
    )


async def test_a_shard_out_of_reach_makes_only_its_own_users_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppendWork, "deadline_s", 0.3)
    monkeypatch.setattr("denizen.events.reading.UserLookUp.deadline_s", 0.3)
    async with mapped(world, s2=NOWHERE) as (gateway, _):
        here, there = name_on(gateway, S1, email, "a{}@example.com"), name_on(gateway, S2, email, "a{}@example.com")
        far = name_on(gateway, S2, username, "a{}")
        with pytest.raises(Unavailable, match="nothing was changed"):
            await gateway.users.register(Registration(email=there), BY)
        with pytest.raises(Unavailable):
            await gateway.users.register(Registration(email=here, username=far), BY)
        written = await gateway.users.register(Registration(email=here), BY)
        assert await gateway.users.get(written.user.id) == written.user
        assert await gateway.users.ready() == {"s1": True, "s2": False}


async def test_the_other_shards_are_swept_when_one_is_out_of_reach(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppendWork, "deadline_s", 0.3)
    async with mapped(world) as (gateway, _):
        mine = name_on(gateway, S1, email, "a{}@example.com"), name_on(gateway, S1, username, "a{}")
        far = name_on(gateway, S2, email, "b{}@example.com"), name_on(gateway, S1, username, "b{}")
        for mail, name in (mine, far):
            crashing = Crashing(gateway, 2, done=False)
            with pytest.raises(Crash):
                await gateway.users.register(Registration(email=mail, username=name), BY)
            await crashing.heal(gateway)
    for order in ({"s2": NOWHERE}, {}):
        async with mapped(world, **order) as (gateway, _):
            assert await Sweeper(gateway.router, gateway.names, 0.0).sweep() == (2 if order else 1)
            if order:
                await gateway.users.register(Registration(email=mine[0], username=mine[1]), BY)
    async with mapped(world) as (gateway, _):
        await assert_consistent(gateway)
