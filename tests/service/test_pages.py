"""Lists over shards between which buckets move: whatever the moment at which each shard is asked, nobody is missed or
listed twice.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.events.records import StoredUser
from denizen.service.pages import Key, ShardPage, joined
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId, bucket_of, mint_user_id
from denizen.users.commands import Registration
from denizen.users.state import Status, User

from .test_routing import S1, S2, mapped, moved_to, sql
from .worlds import BY, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARDS = [ShardId("s1"), ShardId("s2"), ShardId("s3")]
NOBODY = User(status=Status.ACTIVE)


def user(bucket: int, number: int) -> StoredUser:
    return StoredUser(mint_user_id(Bucket(bucket), number), 1, NOW, NOW, NOBODY)


def page(users: list[StoredUser], served: Mapping[int, int], after: Key, limit: int) -> ShardPage:
    """What a shard with these users answers that serves these buckets."""
    mine = sorted(
        (one for one in users if bucket_of(one.id) in served and (bucket_of(one.id), one.id) > after),
        key=lambda one: (bucket_of(one.id), one.id),
    )[:limit]
    full = len(mine) == limit
    last = bucket_of(mine[-1].id) if full else BUCKETS - 1
    within = {Bucket(b): Epoch(e) for b, e in served.items() if max(after[0], 0) <= b <= last}
    return ShardPage(mine, within, full)


@given(
    sizes=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    owners=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    doubles=st.lists(st.one_of(st.none(), st.integers(0, 2)), min_size=8, max_size=8),
    limit=st.integers(1, 9),
)
def test_pages_of_shards_make_one_list(
    sizes: list[int], owners: list[int], doubles: list[int | None], limit: int
) -> None:
    """Buckets 0 to 7 hold users and may be served twice; the others are empty and the first shard's."""
    users = [user(bucket, number) for bucket, size in enumerate(sizes) for number in range(size)]
    serves: list[dict[int, int]] = [dict.fromkeys(range(8, BUCKETS), 1), {}, {}]
    for bucket in range(8):
        double = doubles[bucket]
        if double is not None and double != owners[bucket]:
            serves[double][bucket] = 2  # the fenced source, as it was
        serves[owners[bucket]][bucket] = 3
    listed: list[StoredUser] = []
    after: Key = (-1, UUID(int=0))
    while True:
        pages = {shard: page(users, serves[n], after, limit) for n, shard in enumerate(SHARDS)}
        part = joined(pages, after, limit)
        assert part is not None
        assert len(part.users) <= limit
        listed += part.users
        if part.end is None:
            break
        assert part.end > after
        after = part.end
    assert listed == sorted(users, key=lambda one: (bucket_of(one.id), one.id))


def test_a_bucket_that_nobody_serves_is_never_taken_for_an_empty_one() -> None:
    users = [user(3, 1), user(5, 1)]
    after: Key = (-1, UUID(int=0))
    serves = {bucket: 1 for bucket in range(BUCKETS) if bucket != 4}
    assert joined({S1: page(users, serves, after, 10)}, after, 10) is None
    first = joined({S1: page(users, serves, after, 1)}, after, 1)
    assert first is not None
    assert first.users == users[:1]  # it ends before that bucket


async def test_a_list_waits_until_somebody_serves_every_bucket(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mapped(world) as (gateway, maps):
        written = [await gateway.users.register(Registration(email=f"l{n}@example.com"), BY) for n in range(20)]
        await gateway.names.drain()
        ids = {one.user.id for one in written}
        bucket = bucket_of(written[7].user.id)
        owner = gateway.router.map.owners[bucket]
        source, target = (gateway.router.stores[S1], gateway.router.stores[S2])[:: 1 if owner == 0 else -1]
        await sql(source, "update denizen.buckets set state = 'moved', epoch = 2 where bucket = $1", bucket)
        listing = asyncio.create_task(gateway.users.list_users(limit=1000))
        await asyncio.sleep(0.1)
        assert not listing.done()
        await sql(source, "update denizen.buckets set state = 'open', epoch = 3 where bucket = $1", bucket)
        assert {one.id for one in await listing} == ids
        await sql(target, "insert into denizen.buckets (bucket, epoch, state) values ($1, 2, 'open')", bucket)
        assert {one.id for one in await gateway.users.list_users(limit=1000)} == ids  # the higher epoch is right
        await sql(source, "update denizen.buckets set state = 'moved', epoch = 3 where bucket = $1", bucket)
        after, seen = None, []
        while part := await gateway.users.list_users(after=after, limit=3):
            seen += [one.id for one in part]
            after = (int(bucket_of(part[-1].id)), UUID(str(part[-1].id)))
        assert set(seen) == {identifier for identifier in ids if bucket_of(identifier) != bucket}
        assert len(seen) == len(set(seen))
        assert maps.newest is not None
        await gateway.router._use(moved_to(maps.newest, bucket, 1 - owner))
