"""A large bucket is compared as a whole before the fence, and under it what was touched since."""

import asyncio

import pytest

from denizen import limits
from denizen.moving.errors import CopyDiffers
from denizen.moving.move import Verdict
from denizen.moving.mover import Mover
from denizen.sharding.ids import Bucket, Epoch
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import UserPatch

from .worlds import BY, S1, S2, World

BUCKET = Bucket(1200)
FENCE = Epoch(2)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "move_whole_events_max", 10)


async def test_damage_is_found_before_the_fence(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 15)
    move = world.move(BUCKET)
    await mover.prepare(move)
    await mover.copy(move, lambda _: None)
    await world.execute(S2, "update denizen.events set actor = 'else' where bucket = $1 and sequence = 3", BUCKET)
    with pytest.raises(CopyDiffers) as raised:
        await mover.tail(move)
    assert raised.value.facts["differences"] == ["events: 3 differs"]
    assert await world.state(S1, BUCKET) == ("open", 1)


@pytest.mark.parametrize("table", ["users", "login_names"])
async def test_damage_to_what_was_touched_since_is_found_under_it(world: World, mover: Mover, table: str) -> None:
    people = await world.register(BUCKET, 15)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await world.gateway.users.change(people[3].user.id, UserPatch(display_name="Touched"), if_version=None, context=BY)
    await world.gateway.users.delete(people[4].user.id, None, if_version=None, context=BY)
    await mover.tail(move)
    column, value = ("id", people[3].user.id) if table == "users" else ("user_id", people[4].user.id)
    if table == "users":
        await world.execute(S2, f"delete from denizen.users where {column} = $1", value)  # noqa: S608
    else:
        statement = "insert into denizen.login_names (user_id, bucket, kind, value) values ($1, $2, 1, $3)"
        await world.execute(S2, statement, value, BUCKET, people[4].user.user.email)
    await mover.fence(move, FENCE)
    verification = await mover.finish(move, FENCE)
    assert verification.verdict is Verdict.DIFFERENT
    assert len(verification.differences) == 1


async def test_writes_go_on_while_a_large_bucket_is_compared_and_moves(world: World, mover: Mover) -> None:
    people = await world.register(BUCKET, 30)
    stop = asyncio.Event()
    written = 0

    async def write(user: int) -> None:
        nonlocal written
        while not stop.is_set():
            patch = UserPatch(display_name=str(written))
            await world.gateway.users.change(people[user].user.id, patch, if_version=None, context=BY)
            written += 1

    clients = [asyncio.create_task(write(user)) for user in range(6)]
    await world.run(mover, world.move(BUCKET))
    stop.set()
    await asyncio.gather(*clients)
    await world.gateway.names.drain()
    await assert_consistent(world.gateway)
    assert await world.rows(S1, BUCKET) == {}


async def test_another_leader_compares_the_whole_bucket_under_the_fence(world: World, mover: Mover) -> None:
    """What was touched is remembered by the process that copied; without it, nothing is taken for equal unseen."""
    await world.register(BUCKET, 15)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await world.execute(S2, "update denizen.events set actor = 'else' where bucket = $1 and sequence = 3", BUCKET)
    await mover.fence(move, FENCE)
    async with Mover(world.connect_args, world.gateway.router.hash_seed, world.gateway.kinds, workers=1) as other:
        verification = await other.finish(move, FENCE)
    assert verification.verdict is Verdict.DIFFERENT
