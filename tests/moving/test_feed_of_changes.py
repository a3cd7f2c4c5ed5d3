"""A consumer of the feed of changes does not notice that buckets move."""

import asyncio

from denizen.changes import Follower, Hub
from denizen.changes.cursors import Place
from denizen.moving.mover import Mover
from denizen.service import Context
from denizen.sharding.ids import BUCKETS, Bucket
from denizen.users.commands import UserPatch

from .worlds import S1, S2, World

BUCKET = Bucket(77)
BY = Context("key:test")


async def test_a_bucket_that_moves_there_and_back_repeats_no_change_and_skips_none(world: World, mover: Mover) -> None:
    hub = Hub(None, world.gateway.router, lambda event: event.position.token().encode(), 7)
    users = [each.user.id for each in await world.register(BUCKET, 5)]
    stop = asyncio.Event()
    writes = 0

    async def write() -> None:
        nonlocal writes
        while not stop.is_set():
            for user in users:
                await world.gateway.users.change(user, UserPatch(display_name=f"{writes}"), if_version=None, context=BY)
                writes += 1
            await asyncio.sleep(0.01)

    got: list[str] = []

    async def consume() -> None:
        async with Follower(hub, Place(0, BUCKETS - 1, [0] * BUCKETS)) as follower:
            while not (stop.is_set() and len(own(got)) == await head(world)):
                got.extend(each.decode() for each in await follower.next(100, 0.5))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(consume())
        for source, target in ((S1, S2), (S2, S1)):
            await asyncio.sleep(0.3)
            await world.run(mover, world.move(BUCKET, source, target))
        await asyncio.sleep(0.3)
        stop.set()
    await hub.stop()
    assert own(got) == list(range(1, await head(world) + 1))
    assert len(set(got)) == len(got)


def own(got: list[str]) -> list[int]:
    """The sequences that came of the bucket that moves, as they came."""
    return [int(token.split("-")[1], 16) for token in got if int(token.split("-")[0], 16) == BUCKET]


async def head(world: World) -> int:
    owner = world.gateway.router.map.shard_of(BUCKET)
    return int(await world.execute(owner, "select head from denizen.buckets where bucket = $1", BUCKET))
