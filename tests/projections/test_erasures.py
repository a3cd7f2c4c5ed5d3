"""An erasure never needs a fold: it empties the tables of whoever was parked, and of folds that do not know it."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from denizen.projections import Output, Projection, registry
from denizen.projections.reached import all_have
from denizen.projections.runner import Runner
from denizen.sharding.ids import BUCKETS
from denizen.testing.projections import History, MemoryModel
from denizen.users.events import AttributesChanged, UserErased, UserSuspended

from . import plans
from .plans import CHANGES, PLANS, STATE, WORDS


def refusing(user_id: UUID, row: object, events: Sequence[object], output: Output) -> object:
    """A fold that takes everything but an erasure."""
    if any(type(each.event) is UserErased for each in events):  # type: ignore[attr-defined]
        raise ValueError("no erasures, please")
    return plans.fold(user_id, row, events, output)  # type: ignore[arg-type]


def unstorable(user_id: UUID, row: object, events: Sequence[object], output: Output) -> object:
    """A fold whose answer to an erasure the database refuses."""
    if any(type(each.event) is UserErased for each in events):  # type: ignore[attr-defined]
        output.append(plans.ChangeRow(user_id, 9, events[0].recorded_at, "a\x00b"))  # type: ignore[attr-defined]
    return plans.fold(user_id, row, events, output)  # type: ignore[arg-type]


FOLDS = [plans.fold, refusing, unstorable]


def projection_with(fold: object) -> Projection:
    return Projection("plans", fold, state=STATE, derived=PLANS.derived, outputs=PLANS.outputs)  # type: ignore[arg-type]


async def left_of(connection: asyncpg.Connection, user: UUID) -> dict[str, int]:
    """How many rows of a user each table with something of it has."""
    tables = ("plans", "plan_words", "parked")
    counts = {
        name: await connection.fetchval(
            f"select count(*) from denizen_read.{name} where {'stream' if name == 'parked' else 'user_id'} = $1",  # noqa: S608
            user,
        )
        for name in tables
    }
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("fold", FOLDS)
async def test_an_erased_user_is_gone_whatever_the_fold_says(
    connection: asyncpg.Connection, fold: object, size: int
) -> None:
    history, projection = History(), projection_with(fold)
    ann, bob = history.register(bucket=1, attributes={"plan": "gold plus"}), history.register(bucket=1)
    history.record(ann, AttributesChanged(changed={"plan": "silver plus"}))
    history.record(ann, UserErased(0))
    history.record(bob, UserSuspended("why"))
    runner = Runner(connection, projection, 1)
    await runner.open()
    for start in range(0, len(history.events), size):
        await runner.apply(history.events[start : start + size])
    assert await left_of(connection, ann) == {}
    assert await left_of(connection, bob) == {"plans": 1, "plan_words": 1}


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("poison", ["poison", "a\x00b"])  # the fold refuses the one, the database the other
@pytest.mark.parametrize("fold", FOLDS)
async def test_a_parked_stream_that_is_erased_leaves_nothing_and_is_not_parked_any_more(
    connection: asyncpg.Connection, fold: object, poison: str, size: int
) -> None:
    history = History()
    ann, bob = history.register(bucket=1, attributes={"plan": "gold plus"}), history.register(bucket=1)
    history.record(ann, AttributesChanged(changed={"plan": poison}))
    history.record(ann, UserSuspended("why"))
    history.record(bob, AttributesChanged(changed={"plan": "gold"}))
    runner = Runner(connection, projection_with(fold), 1)
    await runner.open()
    for start in range(0, len(history.events), size):
        await runner.apply(history.events[start : start + size])
    position = history.events[-1].position
    assert await left_of(connection, ann) == {"plans": 1, "plan_words": 2, "parked": 1}
    assert await all_have(connection, bob, position)
    assert not await all_have(connection, ann, position)
    erased = history.record(ann, UserErased(0))
    await runner.apply(history.events)
    assert await left_of(connection, ann) == {}
    assert await all_have(connection, ann, erased.position)
    assert dict(await connection.fetch("select user_id, plan from denizen_read.plans")) == {bob: "gold"}


async def test_a_stream_that_was_parked_and_erased_before_this_program_is_emptied_by_a_retry(
    connection: asyncpg.Connection,
) -> None:
    history = History()
    ann = history.register(bucket=1, attributes={"plan": "gold"})
    history.record(ann, AttributesChanged(changed={"plan": "poison"}))
    runner = Runner(connection, PLANS, 1)
    await runner.open()
    await runner.apply(history.events)
    erased = history.record(ann, UserErased(0))
    await connection.execute(
        "insert into denizen_read.advances (projection, version, buckets, sequences) values ('plans', 1, $1, $2)",
        [1],
        [int(erased.position.sequence)],
    )
    await runner.open()
    assert len(runner.checkpoints) == BUCKETS
    assert not await all_have(connection, ann, erased.position)
    (parked,) = await registry.parked(connection)
    assert await runner.unpark(parked, history.stream)
    assert await left_of(connection, ann) == {}
    assert await all_have(connection, ann, erased.position)


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("fold", FOLDS)
def test_memory_says_the_same_of_erased_and_parked_users(fold: object, size: int) -> None:
    history, model = History(), MemoryModel(projection_with(fold))
    ann, bob = history.register(bucket=1), history.register(bucket=1)
    history.record(ann, AttributesChanged(changed={"plan": "poison"}))
    history.record(ann, UserErased(0))
    history.record(bob, UserErased(0))
    model.apply(history.events, batch=size)
    assert (model.rows(STATE), model.rows(WORDS), model.poison) == ([], [], {})
    assert model.rows(CHANGES)
