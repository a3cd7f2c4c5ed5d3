"""Many gateways, few login names: each name goes to at most one user, and every user keeps its own."""

import asyncio
import random

from denizen.errors import DenizenError, LoginNameTaken, Unavailable, UserDeleted, UserNotFound
from denizen.service import Written
from denizen.service.gateway import Gateway
from denizen.service.sweeper import Sweeper
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import Registration, UserPatch
from denizen.users.login_names import LoginNameKind

from .worlds import BY, World, ann, email, sweep, username

ALL = frozenset(LoginNameKind)


async def test_of_many_sign_ups_for_one_name_exactly_one_wins(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        for turn in range(5):
            registrations = [
                (Registration(email=f"ann{turn}@example.com", username=f"u{turn}.{n}"),
                 Registration(email=f"e{turn}.{n}@example.com", username=f"ann{turn}"),
                 Registration(username=f"ann{turn}"),
                 Registration(email=f"ann{turn}@example.com"))[n % 4]
                for n in range(40)
            ]  # fmt: skip
            results = await asyncio.gather(
                *((one, other)[n // 4 % 2].users.register(r, BY) for n, r in enumerate(registrations)),
                return_exceptions=True,
            )
            written = [result for result in results if isinstance(result, Written)]
            assert len(written) == 2
            assert sum(isinstance(result, LoginNameTaken) for result in results) == 38
            emails = [w for w in written if w.user.user.email == f"ann{turn}@example.com"]
            names = [w for w in written if w.user.user.username == f"ann{turn}"]
            assert len(emails) == len(names) == 1
        await sweep(one)
        await assert_consistent(one)


async def test_crossed_sign_ups_for_three_names_never_wait_for_each_other(world: World) -> None:
    async with world.gateway(kinds=ALL) as one, world.gateway(kinds=ALL) as other:
        for turn in range(10):
            same = {"username": f"ann{turn}", "phone": f"+155500000{turn:02}"}
            results = await asyncio.wait_for(
                asyncio.gather(
                    *(
                        (one, other)[n % 2].users.register(Registration(email=f"e{turn}.{n}@example.com", **same), BY)
                        for n in range(6)
                    ),
                    return_exceptions=True,
                ),
                20,
            )
            assert [type(result) for result in results].count(Written) == 1
            assert [type(result) for result in results].count(LoginNameTaken) == 5
        await sweep(one)
        await assert_consistent(one)


async def test_two_users_who_swap_a_name_at_once_both_keep_theirs(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        for turn in range(10):
            a, b = f"a{turn}", f"b{turn}"
            first, second = await ann(one, a), await ann(other, b)
            results = await asyncio.gather(
                one.users.change(first.user.id, UserPatch(username=b), context=BY),
                other.users.change(second.user.id, UserPatch(username=a), context=BY),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [LoginNameTaken] * 2
            assert (await one.users.find(username(a))).id == first.user.id
            assert (await one.users.find(username(b))).id == second.user.id
        await sweep(one)
        await assert_consistent(one)


async def test_a_user_changed_by_many_at_once_is_changed_by_each_in_turn(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        user_id = (await ann(one)).user.id
        results = await asyncio.gather(
            *(
                (one, other)[n % 2].users.change(user_id, UserPatch(attributes={f"k{n}": n}), context=BY)
                for n in range(10)
            ),
            return_exceptions=True,
        )
        written = sum(isinstance(result, Written) for result in results)
        assert written >= 5
        assert all(isinstance(result, Written | Unavailable) for result in results)
        stored = await one.users.get(user_id)
        assert len(stored.user.attributes) == written == stored.version - 1


async def test_the_same_change_of_a_name_twice_at_once_is_no_conflict_with_oneself(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        for turn in range(10):
            user_id = (await ann(one, f"a{turn}")).user.id
            patch = UserPatch(username=f"new{turn}", email=f"new{turn}@example.com")
            results = await asyncio.gather(*(g.users.change(user_id, patch, context=BY) for g in (one, other, one)))
            assert {result.user.version for result in results} == {3}
        await sweep(one)
        await assert_consistent(one)


async def test_finding_a_name_that_changes_hands_gives_one_of_its_holders(world: World) -> None:
    async with world.gateway() as gateway:
        users = [(await ann(gateway, f"u{n}")).user.id for n in range(2)]
        await gateway.users.change(users[0], UserPatch(username="ball"), context=BY)
        ended = False

        async def look() -> None:
            while not ended:
                try:
                    found = await gateway.users.find(username("ball"))
                    assert found.id in users
                    assert found.user.username == "ball"
                except UserNotFound:
                    pass

        looking = asyncio.create_task(look())
        for turn in range(20):
            await gateway.users.change(users[turn % 2], UserPatch(username=f"none{turn}"), context=BY)
            await gateway.users.change(users[(turn + 1) % 2], UserPatch(username="ball"), context=BY)
        ended = True
        await looking
        await gateway.names.drain()
        await assert_consistent(gateway)


async def test_a_storm_over_few_names_leaves_everything_in_order(world: World) -> None:
    """Sign-ups, changes and deletions by three gateways, some of them cut off in the middle."""
    acknowledged: dict[object, int] = {}
    async with world.gateway(kinds=ALL) as a, world.gateway(kinds=ALL) as b, world.gateway(kinds=ALL) as c:
        gateways = [a, b, c]
        sweeping = asyncio.create_task(sweep_for_ever(Sweeper(c.router, c.names, grace_s=0.1)))
        await asyncio.gather(*(storm(gateways, number, acknowledged) for number in range(24)))
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await asyncio.gather(*(gateway.names.drain() for gateway in gateways))
        await sweep(a)
        await assert_consistent(a)
        assert len(acknowledged) >= 6
        for user_id, version in acknowledged.items():
            history = await a.users.history(user_id, limit=1000)  # type: ignore[arg-type]
            assert len(history) >= version


async def sweep_for_ever(sweeper: Sweeper) -> None:
    while True:
        await sweeper.sweep()
        await asyncio.sleep(0.02)


async def storm(gateways: list[Gateway], number: int, acknowledged: dict[object, int]) -> None:
    chance = random.Random(number)
    for _ in range(15):
        task = asyncio.ensure_future(something(chance.choice(gateways), chance, list(acknowledged)))
        if chance.random() < 0.15:
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
        try:
            written = await task
        except (asyncio.CancelledError, DenizenError):
            continue
        user_id = written.user.id
        acknowledged[user_id] = max(acknowledged.get(user_id, 0), written.user.version)


async def something(gateway: Gateway, chance: random.Random, known: list[object]) -> Written:
    def pick(*spellings: str) -> str | None:
        return chance.choice(spellings).format(chance.randrange(6))

    emails, names, phones = pick("e{}@example.com"), pick("n{}"), pick("+1555000000{}")
    if not known or chance.random() < 0.4:
        return await gateway.users.register(Registration(email=emails, username=names, phone=phones), BY)
    user_id = chance.choice(known)
    if chance.random() < 0.3:
        return await gateway.users.delete(user_id, context=BY)  # type: ignore[arg-type]
    patch = chance.choice([
        UserPatch(email=emails), UserPatch(username=names), UserPatch(email=emails, username=names, phone=phones),
        UserPatch(username=None), UserPatch(phone=None), UserPatch(phone=phones),
    ])  # fmt: skip
    return await gateway.users.change(user_id, patch, context=BY)  # type: ignore[arg-type]


async def test_reads_while_a_user_comes_and_goes_are_never_torn(world: World) -> None:
    async with world.gateway() as gateway:
        user_id = (await ann(gateway)).user.id
        reading = asyncio.gather(
            *(gateway.users.find(email("ann@example.com")) for _ in range(50)), return_exceptions=True
        )
        await gateway.users.delete(user_id, context=BY)
        for result in await reading:
            assert isinstance(result, UserNotFound) or result.id == user_id  # type: ignore[union-attr]
        found = await asyncio.gather(gateway.users.get(user_id), return_exceptions=True)
        assert isinstance(found[0], UserDeleted)
