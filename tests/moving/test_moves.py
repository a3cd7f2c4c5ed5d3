"""A bucket moves: everything arrives, nothing stays, writers and readers go on."""

import asyncio

import pytest

from denizen.errors import DenizenError, LoginNameTaken, UserDeleted
from denizen.events.records import NO_STREAM, Append, Result
from denizen.moving.mover import Mover
from denizen.service import Context
from denizen.service.sweeper import Sweeper
from denizen.sharding.ids import Bucket, Epoch
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import UserSuspended

from .worlds import BY, S1, S2, World, email, nothing, username

BUCKET, OTHER = Bucket(77), Bucket(78)


async def test_everything_of_a_bucket_arrives_and_nothing_stays(world: World, mover: Mover) -> None:
    written = await world.register(BUCKET, 40)
    for each in written[:10]:
        await world.gateway.users.change(each.user.id, UserPatch(display_name="New"), if_version=None, context=BY)
    await world.gateway.users.delete(written[0].user.id, None, if_version=None, context=BY)
    await world.gateway.names.drain()
    before = await world.rows(S1, BUCKET)
    await world.run(mover, world.move(BUCKET))
    assert await world.rows(S2, BUCKET) == before
    assert await world.rows(S1, BUCKET) == {}
    assert await world.state(S2, BUCKET) == ("open", 3)
    await assert_consistent(world.gateway)
    assert (await world.gateway.users.get(written[1].user.id)).user.display_name == "New"
    fifth = written[5].user
    assert (await world.gateway.users.find(email(fifth.user.email or ""))).id == fifth.id
    with pytest.raises(UserDeleted):
        await world.gateway.users.get(written[0].user.id)


async def test_nobody_reads_a_copy_before_it_is_opened_nor_what_was_left_behind(world: World, mover: Mover) -> None:
    written = await world.register(BUCKET, 3)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    there = world.gateway.router.stores[S2]
    for shard in (S2, S1):
        with pytest.raises(DenizenError, match="not on this shard"):
            await world.gateway.router.stores[shard].user(written[0].user.id)
        with pytest.raises(DenizenError, match="not on this shard"):
            await world.gateway.router.stores[shard].name(BUCKET, email(written[0].user.user.email or ""))
        assert BUCKET not in await heads(world, shard)
        if shard == S2:
            assert not [user for user in await world.gateway.users.list_users(after=None, limit=100) if user is None]
            await world.commit(mover, move)
    assert len(await world.gateway.users.list_users(after=None, limit=100)) == 3
    assert (await there.user(written[0].user.id)) is not None


async def heads(world: World, shard: str) -> dict[Bucket, int]:
    from denizen.events.tailing import read_heads
    from denizen.sharding.ids import ShardId

    async with world.sql(ShardId(shard)) as connection:
        return await read_heads(connection)


async def test_writers_never_notice_a_move(world: World, mover: Mover) -> None:
    """Sign-ups, changes and deletions go on in the bucket while it moves there and back, twice."""
    await world.register(BUCKET, 20, "old")
    stop = asyncio.Event()
    names = iter(candidates(world, 100_000))
    acknowledged: dict[str, str] = {}

    async def live() -> None:
        while not stop.is_set():
            name = next(names)
            written = await world.gateway.users.register(Registration(email=name, username=name.replace("@", ".")), BY)
            patch = UserPatch(display_name="Changed")
            await world.gateway.users.change(written.user.id, patch, if_version=None, context=BY)
            acknowledged[name] = str(written.user.id)
            if len(acknowledged) % 5 == 0:
                await world.gateway.users.delete(written.user.id, None, if_version=None, context=BY)
                del acknowledged[name]

    clients = [asyncio.create_task(live()) for _ in range(8)]
    places = [S1, S2]
    for _ in range(4):
        before = len(acknowledged)
        await world.run(mover, world.move(BUCKET, places[0], places[1]))
        places.reverse()
        while len(acknowledged) < before + 5:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*clients)
    await world.gateway.names.drain()
    for name, user_id in acknowledged.items():
        assert str((await world.gateway.users.find(email(name))).id) == user_id
    await assert_consistent(world.gateway)
    assert await world.rows(S2, BUCKET) == {}
    assert await world.state(S1, BUCKET) == ("open", 9)


def candidates(world: World, most: int) -> list[str]:
    found = (f"new{number}@example.com" for number in range(most * 10))
    return [name for name in found if world.gateway.router.bucket_of_name(email(name)) in (BUCKET, OTHER)][:most]


async def test_names_change_hands_between_two_buckets_that_both_move(world: World, mover: Mover) -> None:
    """A user's username is in the other bucket; it is given up and taken again while both buckets are on their way."""
    free = [f"free-{number}" for number in range(40_000)]
    elsewhere = [name for name in free if world.gateway.router.bucket_of_name(username(name)) == OTHER]
    people = await world.register(BUCKET, 2)
    first, second = people[0].user.id, people[1].user.id
    stop = asyncio.Event()
    turns = 0

    async def swap() -> None:
        nonlocal turns
        while not stop.is_set():
            one, two = elsewhere[turns % 3], elsewhere[(turns + 1) % 3]
            for user_id, name in ((first, one), (second, two)):
                try:
                    patch = UserPatch(username=name)
                    await world.gateway.users.change(user_id, patch, if_version=None, context=BY)
                except LoginNameTaken:
                    pass
            turns += 1

    client = asyncio.create_task(swap())
    await asyncio.gather(world.run(mover, world.move(BUCKET)), world.run(mover, world.move(OTHER)))
    reached = turns
    while turns < reached + 2 and not client.done():
        await asyncio.sleep(0.01)
    stop.set()
    await client
    await world.gateway.names.drain()
    await assert_consistent(world.gateway)


async def test_users_are_erased_for_good_while_their_bucket_moves(world: World, mover: Mover) -> None:
    """Some before the copy, some after it, some after the tail: on the target none of their secrets is left."""
    people = [each.user.id for each in await world.register(BUCKET, 12)]
    move = world.move(BUCKET)

    async def erase(some: slice) -> None:
        for user_id in people[some]:
            await world.gateway.users.erase(user_id, context=BY)

    await erase(slice(0, 2))
    await mover.prepare(move)
    await mover.copy(move, nothing)
    await erase(slice(2, 4))
    await mover.tail(move)
    await erase(slice(4, 6))
    await world.commit(mover, move)
    await world.gateway.names.drain()
    secrets = "select count(*) from denizen.events where stream = any ($1) and secret is not null"
    assert await world.execute(S2, secrets, people[:6]) == 0
    assert await world.execute(S2, secrets, people[6:]) == 6
    assert await world.execute(S2, "select count(*) from denizen.erasures where bucket = $1", BUCKET) == 6
    await erase(slice(6, 7))  # at the target
    await mover.clean(move)
    await world.gateway.names.drain()
    assert await world.execute(S2, secrets, people[6:7]) == 0
    await assert_consistent(world.gateway)


async def test_a_change_that_stopped_half_way_is_finished_by_the_sweeper_at_the_target(
    world: World, mover: Mover
) -> None:
    """Reserved on the source, and its gateway died: the reservation moves, with the time since when it stands."""
    (person,) = await world.register(BUCKET, 1)
    names = (f"half-{number}" for number in range(100_000))
    name = next(each for each in names if world.gateway.router.bucket_of_name(username(each)) == OTHER)
    change = world.gateway.names.change(person.user.id, person.user.id, [], [username(name)])
    await world.gateway.names.prepare(change, "key:test")
    since = await world.execute(S1, "select since from denizen.login_names_unsettled where bucket = $1", OTHER)
    await world.run(mover, world.move(OTHER))
    assert since == await world.execute(S2, "select since from denizen.login_names_unsettled where bucket = $1", OTHER)
    while await Sweeper(world.gateway.router, world.gateway.names, grace_s=0.0).sweep():
        pass
    assert await world.gateway.router.name(username(name)) is None
    await assert_consistent(world.gateway)


async def test_a_retry_gets_its_first_outcome_after_the_bucket_moved(world: World, mover: Mover) -> None:
    """The first attempt was committed on the source just before the fence; its answer was lost."""
    (person,) = await world.register(BUCKET, 1)
    context = Context("key:test", idempotency_key="once", fingerprint=b"same")
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    first = await world.gateway.users.change(
        person.user.id, UserPatch(display_name="Once"), if_version=None, context=context
    )
    await world.commit(mover, move)
    again = await world.gateway.users.change(
        person.user.id, UserPatch(display_name="Once"), if_version=None, context=context
    )
    assert again.replayed
    assert (again.position, again.user.version) == (first.position, first.user.version)


async def test_a_cancelled_command_stays_cancelled_after_the_bucket_moved(world: World, mover: Mover) -> None:
    (person,) = await world.register(BUCKET, 1)
    command = world.move(BUCKET).id
    cancelled = "select denizen.cancel_command($1::smallint, 1, $2, $3)"
    assert await world.execute(S1, cancelled, BUCKET, person.user.id, command) is True
    await world.run(mover, world.move(BUCKET))
    late = Append(BUCKET, person.user.id, NO_STREAM + 1, command, (UserSuspended(),), "key:test")
    outcome = await world.gateway.router.append(late)
    assert outcome.result is Result.CANCELLED


async def test_a_bucket_moves_back_before_its_old_copy_was_removed(world: World, mover: Mover) -> None:
    people = await world.register(BUCKET, 10)
    there = world.move(BUCKET)
    await world.run(mover, there, clean=False)
    await world.register(BUCKET, 5, "later")
    back = world.move(BUCKET, S2, S1)
    await world.run(mover, back, clean=False)
    await mover.clean(there)  # late: what is there now belongs to the second move
    assert (await world.rows(S1, BUCKET))["users"] == 15
    assert (await world.gateway.users.get(people[0].user.id)).id == people[0].user.id
    await mover.clean(back)
    assert await world.rows(S2, BUCKET) == {}
    await world.run(mover, world.move(BUCKET), clean=False)
    await mover.clean(there)  # nor what the third one left: it has a grace of its own
    assert (await world.rows(S1, BUCKET))["users"] == 15
    await assert_consistent(world.gateway)


async def test_every_step_may_be_repeated(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 10)
    move = world.move(BUCKET)
    for _ in range(2):
        await mover.prepare(move)
        await mover.copy(move, nothing)
        await mover.tail(move)
    heads = [await mover.fence(move, Epoch(2)) for _ in range(2)]
    assert heads[0] == heads[1]
    for _ in range(2):
        assert (await mover.finish(move, Epoch(2))).head == heads[0]
    for _ in range(2):
        await mover.open(move, Epoch(3))
        world.maps.publish(BUCKET, S2, 3)
        await mover.close(move, Epoch(3))
    for _ in range(2):
        await mover.clean(move)
    assert await world.state(S2, BUCKET) == ("open", 3)
    assert await world.rows(S1, BUCKET) == {}
    await assert_consistent(world.gateway)
