"""What buckets weigh, from a shard's own figures."""

from denizen.moving.measures import Scales
from denizen.sharding.ids import Bucket
from denizen.users.commands import UserPatch

from .worlds import BY, S1, World

ONE, OTHER = Bucket(5), Bucket(6)


async def test_a_bucket_weighs_its_users_events_and_bytes(world: World) -> None:
    await world.register(ONE, 30)
    await world.register(OTHER, 10)
    async with world.sql(S1) as connection:
        weights = await Scales().weigh(S1, connection)
    assert (weights[ONE].users, weights[OTHER].users) == (30, 10)
    assert weights[ONE].events >= 30
    assert weights[ONE].bytes > weights[OTHER].bytes > weights[Bucket(4000)].bytes
    assert sum(each.users for each in weights.values()) == 40


async def test_requests_are_what_the_head_moved_since_the_last_look(world: World) -> None:
    written = await world.register(ONE, 2)
    scales = Scales()
    async with world.sql(S1) as connection:
        await scales.weigh(S1, connection)
        for number in range(5):
            patch = UserPatch(display_name=str(number))
            await world.gateway.users.change(written[0].user.id, patch, if_version=None, context=BY)
        weights = await scales.weigh(S1, connection)
    assert weights[ONE].requests > 0
    assert weights[OTHER].requests == 0
