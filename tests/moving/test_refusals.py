"""What is too late, too early or somebody else's is refused by the servers themselves."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from denizen import limits
from denizen.moving.errors import (
    BucketBusy,
    FenceTimeout,
    MoveAborted,
    NotHere,
    NotVerified,
    SchemasDiffer,
    StaleAttempt,
    TooFarBehind,
)
from denizen.moving.move import Verdict
from denizen.moving.mover import Mover
from denizen.sharding.ids import Bucket, Epoch
from denizen.users.commands import UserPatch

from .worlds import BY, S1, S2, World, nothing

BUCKET = Bucket(300)
FENCE, OPEN = Epoch(2), Epoch(3)


async def test_late_work_of_an_older_attempt_is_refused_by_both_servers(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 3)
    old = world.move(BUCKET)
    new = replace(old, attempt=2)
    await world.to_fence(mover, old)
    await mover.prepare(new)
    for late in (
        mover.prepare(old),
        mover.copy(old, nothing),
        mover.tail(old),
        mover.fence(old, FENCE),
        mover.finish(old, FENCE),
        mover.open(old, OPEN),
        mover.bar(old),
        mover.reopen(old, OPEN),
        mover.abort(old),
    ):
        with pytest.raises(StaleAttempt):
            await late
    assert await world.state(S1, BUCKET) == ("open", 1)
    await mover.fence(new, FENCE)
    with pytest.raises(StaleAttempt):
        await mover.close(old, OPEN)
    assert (await mover.finish(new, FENCE)).verdict is Verdict.EQUAL


async def test_an_attempt_that_was_barred_never_opens_the_target(world: World, mover: Mover) -> None:
    """The old leader's opening arrives after the new one gave the fence up."""
    (person,) = await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await mover.fence(move, FENCE)
    assert (await mover.finish(move, FENCE)).verdict is Verdict.EQUAL
    barring = replace(move, attempt=2)
    assert await mover.bar(barring) is True
    await mover.reopen(barring, OPEN)
    for late, error in ((move, StaleAttempt), (barring, NotVerified)):
        with pytest.raises(error):
            await mover.open(late, OPEN)
    world.maps.publish(BUCKET, S1, OPEN)
    await world.gateway.users.change(person.user.id, UserPatch(display_name="On"), if_version=None, context=BY)
    again = replace(barring, attempt=3, epoch=OPEN)
    await mover.tail(again)
    await world.commit(mover, again)
    assert (await world.gateway.users.get(person.user.id)).user.display_name == "On"


async def test_a_target_that_is_open_cannot_be_barred(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await mover.fence(move, FENCE)
    await mover.finish(move, FENCE)
    await mover.open(move, OPEN)
    later = replace(move, attempt=2)
    assert await mover.bar(later) is False
    assert await mover.abort(later) is False
    await mover.close(later, OPEN)
    assert await world.state(S2, BUCKET) == ("open", 3)


async def test_a_source_that_was_closed_serves_again_when_the_open_target_is_lost(world: World, mover: Mover) -> None:
    """The operator's word came between the opening and the commit: nobody else has the bucket any more."""
    (person,) = await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    await mover.fence(move, FENCE)
    await mover.finish(move, FENCE)
    await mover.open(move, OPEN)
    await mover.close(move, OPEN)
    after = replace(move, attempt=2)
    with pytest.raises(NotHere):
        await mover.reopen(after, FENCE)
    await mover.reopen(after, OPEN)
    await mover.reopen(after, OPEN)
    assert await world.state(S1, BUCKET) == ("open", OPEN)
    world.maps.publish(BUCKET, S1, OPEN)
    await world.gateway.users.change(person.user.id, UserPatch(display_name="Back"), if_version=None, context=BY)


async def test_the_target_never_opens_before_it_was_found_equal(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    with pytest.raises(NotVerified):
        await mover.open(move, OPEN)
    await mover.fence(move, FENCE)
    with pytest.raises(NotVerified):
        await mover.open(move, OPEN)


async def test_nothing_is_finished_without_the_fence(world: World, mover: Mover) -> None:
    await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    with pytest.raises(NotHere):
        await mover.finish(move, FENCE)


async def test_two_moves_of_one_bucket_exclude_each_other(world: World, mover: Mover) -> None:
    first, second = world.move(BUCKET), world.move(BUCKET)
    outcomes = await asyncio.gather(mover.prepare(first), mover.prepare(second), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["BucketBusy", "Prepared"]
    loser = second if isinstance(outcomes[1], BucketBusy) else first
    winner = first if loser is second else second
    await mover.abort(winner)
    await mover.prepare(loser)
    with pytest.raises(MoveAborted):
        await mover.prepare(winner)


async def test_a_bucket_is_not_moved_from_where_it_is_not_nor_to_where_it_is(world: World, mover: Mover) -> None:
    with pytest.raises(NotHere):
        await mover.prepare(world.move(BUCKET, S2, S1))
    with pytest.raises(NotHere):
        await mover.prepare(replace(world.move(BUCKET), epoch=Epoch(7)))
    await mover.prepare(world.move(BUCKET))


async def test_servers_with_different_schemas_do_not_move_buckets(world: World, mover: Mover) -> None:
    insert = "insert into denizen.schema_migrations (version, name, checksum) values (9999, 'newer', 'x')"
    await world.execute(S2, insert)
    with pytest.raises(SchemasDiffer):
        await mover.prepare(world.move(BUCKET))
    assert await world.rows(S2, BUCKET) == {}


async def test_a_transaction_that_holds_the_bucket_past_the_budget_is_not_waited_for(
    world: World, mover: Mover
) -> None:
    (person,) = await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    async with world.sql(S1) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select from denizen.buckets where bucket = $1 for update", BUCKET)
        with pytest.raises(FenceTimeout):
            await mover.fence(move, FENCE)
        await transaction.rollback()
    assert await world.state(S1, BUCKET) == ("open", 1)
    await world.gateway.users.change(person.user.id, UserPatch(display_name="On"), if_version=None, context=BY)
    await mover.tail(move)
    await world.commit(mover, move)


async def test_a_target_that_is_far_behind_is_not_fenced_for(
    world: World, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register(BUCKET, 3)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    monkeypatch.setattr(limits, "move_fence_events_max", 5)
    await world.register(BUCKET, 6, "later")
    with pytest.raises(TooFarBehind):
        await mover.fence(move, FENCE)
    assert await world.state(S1, BUCKET) == ("open", 1)
    await mover.tail(move)
    await mover.fence(move, FENCE)


@pytest.mark.parametrize("stage", ["nothing", "prepared", "copied", "tailed", "fenced", "verified"])
async def test_a_move_cancelled_in_any_stage_leaves_nothing(world: World, mover: Mover, stage: str) -> None:
    people = await world.register(BUCKET, 10)
    move = world.move(BUCKET)
    for name, step in (
        ("nothing", None),
        ("prepared", lambda: mover.prepare(move)),
        ("copied", lambda: mover.copy(move, nothing)),
        ("tailed", lambda: mover.tail(move)),
        ("fenced", lambda: mover.fence(move, FENCE)),
        ("verified", lambda: mover.finish(move, FENCE)),
    ):
        if step is not None:
            await step()
        if name == stage:
            break
    cancelling = replace(move, attempt=2)
    epoch = 1
    if stage in ("fenced", "verified"):
        assert await mover.bar(cancelling)
        await mover.reopen(cancelling, OPEN)
        world.maps.publish(BUCKET, S1, OPEN)
        epoch = OPEN
    for _ in range(2):
        assert await mover.abort(cancelling)
    assert await world.rows(S2, BUCKET) == {}
    assert await world.state(S1, BUCKET) == ("open", epoch)
    await world.gateway.users.change(people[0].user.id, UserPatch(display_name="On"), if_version=None, context=BY)
    with pytest.raises(MoveAborted):
        await mover.prepare(replace(move, attempt=3))
    await world.run(mover, world.move(BUCKET))


async def test_a_step_of_a_move_that_was_never_prepared_is_refused(world: World, mover: Mover) -> None:
    move = replace(world.move(BUCKET), id=uuid4())
    with pytest.raises(Exception, match="not prepared"):
        await mover.fence(move, FENCE)


async def test_the_bucket_stays_writable_while_a_fence_is_refused_again_and_again(world: World, mover: Mover) -> None:
    (person,) = await world.register(BUCKET, 1)
    move = world.move(BUCKET)
    await world.to_fence(mover, move)
    connection = await asyncpg.connect(**world.connect_args(S1))
    try:
        async with connection.transaction():
            await connection.execute("select from denizen.bucket_moves where move = $1 for update", move.id)
            for _ in range(2):
                with pytest.raises(FenceTimeout):
                    await mover.fence(move, FENCE)
                patch = UserPatch(display_name="On")
                await world.gateway.users.change(person.user.id, patch, if_version=None, context=BY)
    finally:
        await connection.close()
