"""API keys: shown once, kept as a hash, known to every gateway within a second or so."""

import asyncio

import asyncpg
import pytest

from denizen.errors import Invalid
from denizen.events.store import ShardStore
from denizen.events.stores import ShardStores
from denizen.service.gateway import Gateway
from denizen.service.keys import KeyRing
from denizen.sharding.ids import ShardId

from .worlds import World


async def test_a_key_opens_what_it_was_made_for(gateway: Gateway) -> None:
    info, token = await gateway.keys.create("importer", ["users:write", "users:read", "users:read"], 100)
    assert (info.name, info.scopes, info.rate_per_s) == ("importer", {"users:read", "users:write"}, 100)
    assert token.startswith(f"dk_{info.id}_")
    assert len(token) > 50
    assert gateway.keys.check(token) == info
    assert await gateway.keys.list() == [info]


async def test_what_is_no_key_opens_nothing(gateway: Gateway) -> None:
    info, token = await gateway.keys.create("a", ["admin"])
    other, other_token = await gateway.keys.create("b", ["admin"])
    secret = other_token.removeprefix(f"dk_{other.id}_")
    for wrong in (
        "", "dk", "dk_", f"dk_{info.id}", f"dk_{info.id}_", f"dk_{info.id}_{secret}", token[:-1], token + "x",
        token.upper(), token.replace("dk_", "xx_"), f" {token}", f"{token}\n", "dk_unknown_" + secret, "\ud800",
        "dk_\0_x", "_" * 100_000,
    ):  # fmt: skip
        assert gateway.keys.check(wrong) is None, wrong[:80]


async def test_a_revoked_key_opens_nothing_and_stays_listed(gateway: Gateway) -> None:
    info, token = await gateway.keys.create("a", ["admin"])
    revoked = await gateway.keys.revoke(info.id)
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert gateway.keys.check(token) is None
    assert await gateway.keys.revoke(info.id) == revoked
    assert await gateway.keys.list() == [revoked]
    assert await gateway.keys.revoke("unknown") is None


async def test_only_a_hash_of_the_secret_is_stored(gateway: Gateway) -> None:
    info, token = await gateway.keys.create("a", ["admin"])
    secret = token.removeprefix(f"dk_{info.id}_")
    store = next(iter(gateway.router.stores.values()))
    rows = await store.read(lambda c: c.fetch("select k::text as row, secret_hash from denizen.api_keys k"))
    assert len(rows) == 1
    assert secret not in rows[0]["row"]
    assert secret.encode() not in rows[0]["secret_hash"]
    assert len(rows[0]["secret_hash"]) == 32
    assert secret not in repr(info)


async def test_another_gateway_learns_of_new_and_revoked_keys(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        info, token = await one.keys.create("a", ["admin"])
        await until(lambda: other.keys.check(token) is not None)
        await one.keys.revoke(info.id)
        await until(lambda: other.keys.check(token) is None)
    async with world.gateway() as later:
        assert later.keys.check(token) is None
        assert [key.id for key in await later.keys.list()] == [info.id]


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def test_a_new_key_is_known_at_once_whatever_is_loaded_meanwhile(gateway: Gateway) -> None:
    async def load() -> None:
        for _ in range(30):
            await gateway.keys._load()

    loading = asyncio.create_task(load())
    for number in range(10):
        _, token = await gateway.keys.create(f"k{number}", ["admin"])
        for _ in range(5):
            assert gateway.keys.check(token) is not None
            await asyncio.sleep(0.001)
    await loading
    assert len(await gateway.keys.list()) == 10


async def test_every_shard_has_every_key_and_gets_again_what_it_lacks(gateway: Gateway) -> None:
    stores = list(gateway.router.stores.values())
    assert len(stores) > 1
    info, token = await gateway.keys.create("a", ["admin"])
    other, _ = await gateway.keys.create("b", ["admin"])
    for store in stores:
        assert {row["id"] for row in await ids(store)} == {info.id, other.id}
    await stores[0].read(lambda connection: connection.execute("delete from denizen.api_keys"))
    await stores[1].read(lambda connection: connection.execute("delete from denizen.api_keys where name = 'b'"))
    assert {key.id for key in await gateway.keys.list()} >= {info.id}
    for store in stores:
        assert info.id in {row["id"] for row in await ids(store)}
    assert gateway.keys.check(token) is not None


async def test_a_revocation_that_one_shard_has_is_everywhere(gateway: Gateway) -> None:
    info, token = await gateway.keys.create("a", ["admin"])
    stores = list(gateway.router.stores.values())
    revoke = "update denizen.api_keys set revoked_at = clock_timestamp()"
    await stores[1].read(lambda connection: connection.execute(revoke))
    assert [key.revoked_at is None for key in await gateway.keys.list()] == [False]
    assert gateway.keys.check(token) is None
    for store in stores:
        assert [row["revoked_at"] is None for row in await ids(store)] == [False]
    assert (await gateway.keys.list())[0].id == info.id


async def test_keys_are_known_and_made_while_a_shard_is_away(world: World) -> None:
    async with world.gateway() as gateway:
        _, token = await gateway.keys.create("a", ["admin"])
    shards = dict(zip((ShardId("s1"), ShardId("s2")), (each.connect_args for each in world.databases), strict=True))
    nowhere = shards | {ShardId("s1"): shards[ShardId("s1")] | {"host": "127.0.0.1", "port": 1}}
    async with ShardStores(nowhere) as stores:
        await stores.open(nowhere)
        ring = KeyRing(stores)
        await ring.start()
        assert ring.check(token) is not None
        _, later = await ring.create("b", ["admin"])
        await ring.stop()
    async with ShardStores({ShardId("s1"): shards[ShardId("s1")]}) as stores:
        await stores.open(shards)
        ring = KeyRing(stores)
        await ring.start()
        assert ring.check(later) is None  # it was away
        await ring.stop()
    async with world.gateway() as gateway:
        assert gateway.keys.check(later) is not None
        for store in gateway.router.stores.values():
            assert len(await ids(store)) == 2


async def ids(store: ShardStore) -> "list[asyncpg.Record]":
    rows: list[asyncpg.Record] = await store.read(
        lambda connection: connection.fetch("select id, revoked_at from denizen.api_keys order by id")
    )
    return rows


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "field"),
    [
        ("", ["admin"], None, "name"),
        ("a" * 101, ["admin"], None, "name"),
        ("a\nb", ["admin"], None, "name"),
        ("a\0", ["admin"], None, "name"),
        ("\ud800", ["admin"], None, "name"),
        ("a", [], None, "scopes"),
        ("a", ["admin", "root"], None, "scopes"),
        ("a", ["admin"], 0, "rate_per_s"),
        ("a", ["admin"], 1_000_001, "rate_per_s"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(
    gateway: Gateway, name: str, scopes: list[str], rate: int | None, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await gateway.keys.create(name, scopes, rate)
    assert caught.value.facts["field"] == field
    assert await gateway.keys.list() == []


async def test_there_is_a_most_of_keys(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("denizen.limits.api_keys_max", 2)
    first, _ = await gateway.keys.create("a", ["admin"])
    await gateway.keys.create("b", ["admin"])
    with pytest.raises(Invalid, match="2 keys"):
        await gateway.keys.create("c", ["admin"])
    await gateway.keys.revoke(first.id)
    await gateway.keys.create("c", ["admin"])  # a revoked key takes no place
    for _ in range(4):
        newest, _ = await gateway.keys.create("d", ["admin"]) if await revoke_one(gateway) else (None, "")
    assert len(await gateway.keys.list()) <= 2 + 2 + 1
    assert newest in await gateway.keys.list()


async def revoke_one(gateway: Gateway) -> bool:
    live = [key for key in await gateway.keys.list() if key.revoked_at is None]
    return await gateway.keys.revoke(live[0].id) is not None
