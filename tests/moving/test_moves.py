"""A bucket moves: everything arrives, nothing stays, nobody notices."""

from denizen.moving.mover import Mover
from denizen.sharding.ids import Bucket
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import UserPatch

from .worlds import BY, S1, S2, World, email

BUCKET = Bucket(77)


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
