"""Users are erased, and login names given up, while their buckets move: nothing comes back with the copy."""

from uuid import UUID

from denizen.moving.mover import Mover
from denizen.sharding.ids import Bucket
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import UserPatch
from denizen.users.login_names import LoginName, LoginNameKind

from .worlds import BY, S2, World, nothing

BUCKET = Bucket(77)
_SECRETS = "select count(*) from denizen.events where stream = $1 and secret is not null"
_RELEASED = """
    select count(*) from denizen.events e
    join denizen.events gone on gone.stream = e.stream and gone.version > e.version and gone.type = 105
    where e.secret is not null
"""


async def secrets(world: World, shard: str, user_id: UUID) -> int:
    async with world.sql(shard) as connection:  # type: ignore[arg-type]
        return int(await connection.fetchval(_SECRETS, user_id))


async def test_an_erasure_in_the_middle_of_a_copy_is_done_on_the_target_too(world: World, mover: Mover) -> None:
    first, second, third, fourth = (written.user.id for written in await world.register(BUCKET, 4))
    await world.gateway.erasures.erase(first, BY)
    move = world.move(BUCKET)
    await mover.prepare(move)
    await mover.copy(move, nothing)
    assert await secrets(world, S2, second) == 1  # it was copied with its secret
    await world.gateway.erasures.erase(second, BY)
    await mover.tail(move)
    await world.gateway.erasures.erase(third, BY)  # comes with the last events, under the fence
    await world.commit(mover, move)
    await mover.clean(move)
    for erased in (first, second, third):
        assert await secrets(world, S2, erased) == 0
        assert (await world.gateway.erasures.certificate(erased)).user_id == erased
    assert await secrets(world, S2, fourth) == 1
    assert {each.user_id for each in await world.gateway.erasures.newest(limit=9)} == {first, second, third}
    await world.gateway.erasures.sweep()
    assert all(each.settled_at for each in await world.gateway.erasures.newest(limit=9))
    await assert_consistent(world.gateway)


async def test_a_name_given_up_during_a_copy_is_not_known_on_the_target(world: World, mover: Mover) -> None:
    """The bucket of a name that belongs to a user of another bucket."""
    users = [written.user for written in await world.register(Bucket(78), 3)]
    name = await world.gateway.users.change(users[0].id, UserPatch(username="elsewhere-1"), context=BY)
    bucket = world.gateway.router.bucket_of_name(LoginName(LoginNameKind.USERNAME, "elsewhere-1"))
    move = world.move(bucket)
    await mover.prepare(move)
    await mover.copy(move, nothing)
    await world.gateway.users.change(users[0].id, UserPatch(username="elsewhere-2"), context=BY)
    await world.gateway.names.drain()
    await mover.tail(move)
    await world.commit(mover, move)
    async with world.sql(S2) as connection:
        assert await connection.fetchval(_RELEASED) == 0
        assert await connection.fetchval("select count(*) from denizen.events where type = 105") == 1
    assert name.user.user.username == "elsewhere-1"
    await assert_consistent(world.gateway)
