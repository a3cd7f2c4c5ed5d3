"""Whatever is wrong on the target is found before it opens: corrupted, missing or extra, in any table."""

import pytest

from denizen.moving.errors import NotVerified
from denizen.moving.move import Verdict
from denizen.moving.mover import Mover
from denizen.service import Context
from denizen.sharding.ids import Bucket, Epoch
from denizen.users.commands import UserPatch

from .worlds import S1, S2, World, username

BUCKET = Bucket(900)
FENCE, OPEN = Epoch(2), Epoch(3)

DAMAGE = {
    "an event corrupted": ("update denizen.events set actor = 'else' where bucket = $1 and sequence = 3", "events"),
    "an event missing": ("delete from denizen.events where bucket = $1 and sequence = 3", "events"),
    "an event extra": (
        "insert into denizen.events select sequence + 1000, recorded_at, gen_random_uuid(), 1, bucket, type, schema,"
        " command_id, correlation_id, actor, data from denizen.events where bucket = $1 and sequence = 3",
        "events",
    ),
    "a state corrupted": (
        "update denizen.users set document = document || '\\x00' where ctid = any (array("
        "select ctid from denizen.users where bucket = $1 limit 1))",
        "users",
    ),
    "a state's time wrong": (
        "update denizen.users set updated_at = updated_at + interval '1 us' where ctid = any (array("
        "select ctid from denizen.users where bucket = $1 limit 1))",
        "users",
    ),
    "a state missing": (
        "delete from denizen.users where ctid = any (array(select ctid from denizen.users where bucket = $1 limit 1))",
        "users",
    ),
    "a state extra": (
        "insert into denizen.users select gen_random_uuid(), created_at, updated_at, version, bucket, status, document"
        " from denizen.users where bucket = $1 limit 1",
        "users",
    ),
    "a login name of another user": (
        "update denizen.login_names set user_id = gen_random_uuid() where ctid = any (array("
        "select ctid from denizen.login_names where bucket = $1 limit 1))",
        "login names",
    ),
    "a login name missing": (
        "delete from denizen.login_names where ctid = any (array("
        "select ctid from denizen.login_names where bucket = $1 limit 1))",
        "login names",
    ),
    "a login name extra": (
        "insert into denizen.login_names select user_id, bucket, kind, value || 'x' from denizen.login_names"
        " where bucket = $1 limit 1",
        "login names",
    ),
    "a reservation missing": ("delete from denizen.login_names_unsettled where bucket = $1", "unsettled login names"),
}


async def filled(world: World) -> None:
    """Users, keys, and a change of a name that is under way in the bucket."""
    people = await world.register(BUCKET, 6)
    context = Context("key:test", idempotency_key="key", fingerprint=b"")
    await world.gateway.users.change(people[0].user.id, UserPatch(display_name="X"), if_version=None, context=context)
    names = (f"under-way-{number}" for number in range(100_000))
    name = next(each for each in names if world.gateway.router.bucket_of_name(username(each)) == BUCKET)
    (stranger,) = await world.register(Bucket(901), 1, "stranger")
    change = world.gateway.names.change(stranger.user.id, stranger.user.id, [], [username(name)])
    await world.gateway.names.prepare(change, "key:test")


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_on_the_target_is_found_before_it_opens(world: World, mover: Mover, damage: str) -> None:
    await filled(world)
    statement, table = DAMAGE[damage]
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await world.execute(S2, statement, BUCKET)
    await mover.fence(move, FENCE)
    verification = await mover.finish(move, FENCE)
    assert verification.verdict is Verdict.DIFFERENT
    assert verification.differences
    assert all(difference.startswith(f"{table}: ") for difference in verification.differences)
    with pytest.raises(NotVerified):
        await mover.open(move, OPEN)
    assert await mover.bar(move)
    await mover.reopen(move, OPEN)
    assert await mover.abort(move)
    assert await world.rows(S2, BUCKET) == {}


async def test_damage_on_the_source_is_found_too(world: World, mover: Mover) -> None:
    """The digest was kept while the events were written: what changed since then does not move on as if it were so."""
    await filled(world)
    await world.execute(S1, "update denizen.events set actor = 'else' where bucket = $1 and sequence = 2", BUCKET)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await mover.fence(move, FENCE)
    verification = await mover.finish(move, FENCE)
    assert verification.verdict is Verdict.DIFFERENT
    assert any("digest" in difference for difference in verification.differences)


async def test_idempotency_records_that_differ_are_carried_anew(world: World, mover: Mover) -> None:
    """A clock that was set back, or records forgotten on one side only: nothing to fail a move for."""
    await filled(world)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await world.execute(S2, "delete from denizen.idempotency where bucket = $1", BUCKET)
    back = "update denizen.idempotency set recorded_at = recorded_at - interval '1 hour' where bucket = $1"
    await world.execute(S1, back, BUCKET)
    await mover.fence(move, FENCE)
    assert (await mover.finish(move, FENCE)).verdict is Verdict.EQUAL
    assert (await world.rows(S2, BUCKET))["idempotency"] == 1


async def test_secrets_that_were_wrapped_anew_meanwhile_are_carried_again(world: World, mover: Mover) -> None:
    """Another wrapping key, or the source's alone: nothing to fail a move for, and never lost."""
    await filled(world)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    anew = "update denizen.events set secret = 'anew' where bucket = $1 and sequence = 1"
    await world.execute(S1, anew, BUCKET)
    gone = "update denizen.events set secret = null where bucket = $1 and sequence = 2"
    await world.execute(S1, gone, BUCKET)
    await mover.fence(move, FENCE)
    assert (await mover.finish(move, FENCE)).verdict is Verdict.EQUAL
    secrets = "select array_agg(secret order by sequence) from denizen.events where bucket = $1"
    assert await world.execute(S1, secrets, BUCKET) == await world.execute(S2, secrets, BUCKET)
