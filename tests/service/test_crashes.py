"""A gateway that ends at any step of a change of login names: the sweeper finishes it or undoes it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from denizen.errors import DenizenError, LoginNameTaken, UserNotFound
from denizen.events.records import Result
from denizen.service import Written
from denizen.service.gateway import Gateway
from denizen.service.sweeper import Sweeper
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import Registration, UserPatch
from denizen.users.login_names import LoginName, LoginNameKind, login_name

from .worlds import BY, Crash, Crashing, World, ann, email, sweep, username

KINDS = frozenset(LoginNameKind)


async def register(gateway: Gateway, tag: str) -> Awaitable[Written]:
    registration = Registration(email=f"{tag}@example.com", username=tag, phone=phone(tag).value)
    return gateway.users.register(registration, BY)


async def change_email(gateway: Gateway, tag: str) -> Awaitable[Written]:
    first = await ann(gateway, tag)
    return gateway.users.change(first.user.id, UserPatch(email=f"new-{tag}@example.com"), context=BY)


async def change_both(gateway: Gateway, tag: str) -> Awaitable[Written]:
    first = await ann(gateway, tag)
    patch = UserPatch(email=f"new-{tag}@example.com", username=f"new-{tag}")
    return gateway.users.change(first.user.id, patch, context=BY)


async def drop_username(gateway: Gateway, tag: str) -> Awaitable[Written]:
    first = await ann(gateway, tag)
    return gateway.users.change(first.user.id, UserPatch(username=None), context=BY)


async def delete(gateway: Gateway, tag: str) -> Awaitable[Written]:
    first = await ann(gateway, tag)
    patch = UserPatch(email=f"new-{tag}@example.com")  # so that both names live elsewhere
    await gateway.users.change(first.user.id, patch, context=BY)
    return gateway.users.delete(first.user.id, context=BY)


def phone(tag: str) -> LoginName:
    return login_name(LoginNameKind.PHONE, "+1555" + "".join(str(ord(letter) % 10) for letter in tag)[:9])


COMMANDS: list[Callable[[Gateway, str], Awaitable[Awaitable[Written]]]] = [
    register,
    change_email,
    change_both,
    drop_username,
    delete,
]


@pytest.mark.parametrize("done", [False, True], ids=["before the step", "after the step"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
async def test_a_crash_at_each_step_leaves_all_or_nothing(
    world: World, command: Callable[[Gateway, str], Awaitable[Awaitable[Written]]], done: bool
) -> None:
    async with world.gateway(kinds=KINDS) as gateway, world.gateway(kinds=KINDS) as healthy:
        for step in range(1, 20):
            tag = f"{'ab'[done]}{step:02}"
            attempt = await command(gateway, tag)
            await gateway.names.drain()
            crashing = Crashing(gateway, step, done=done)
            acknowledged = False
            try:
                await attempt
                acknowledged = True
            except Crash:
                pass
            await crashing.heal(gateway)
            if not crashing.crashed:
                break
            await sweep(healthy)
            await assert_consistent(healthy)
            await late(healthy, crashing)
            await both_names_agree(healthy, command, tag, acknowledged)
        assert step > 3


async def late(gateway: Gateway, crashing: Crashing) -> None:
    """The step at which it crashed arrives after all, from a network that kept it."""
    assert crashing.last is not None
    outcome = await gateway.router.append(crashing.last)
    if crashing.last.state is not None and outcome.result is not Result.REPEATED:
        assert outcome.result is Result.CANCELLED  # the user's command: its reservations are gone
    await sweep(gateway)
    await assert_consistent(gateway)


async def both_names_agree(gateway: Gateway, command: object, tag: str, acknowledged: bool) -> None:
    """All of the change, or nothing of it; all of it if it was acknowledged."""
    old = await has(gateway, email(f"{tag}@example.com"))
    old_username = await has(gateway, username(tag))
    new = await has(gateway, email(f"new-{tag}@example.com"))
    new_username = await has(gateway, username(f"new-{tag}"))
    seen = (old, old_username, new, new_username)
    nothing, everything = {
        register: ((False, False, False, False), (True, True, False, False)),
        change_email: ((True, True, False, False), (False, True, True, False)),
        change_both: ((True, True, False, False), (False, False, True, True)),
        drop_username: ((True, True, False, False), (True, False, False, False)),
        delete: ((False, True, True, False), (False, False, False, False)),
    }[command]  # type: ignore[index]
    assert seen in (everything, *([] if acknowledged else [nothing]))


async def has(gateway: Gateway, name: LoginName) -> bool:
    try:
        await gateway.users.find(name)
    except UserNotFound:
        return False
    return True


async def test_a_slow_command_that_the_sweeper_gave_up_on_is_refused(world: World) -> None:
    async with world.gateway() as slow, world.gateway() as healthy:
        await ann(slow, "bob")
        append = slow.router.append
        waiting, go_on = asyncio.Event(), asyncio.Event()

        async def stopped(request):  # type: ignore[no-untyped-def]
            if request.state is not None:
                waiting.set()
                await go_on.wait()
            return await append(request)

        slow.router.append = stopped  # type: ignore[method-assign]
        attempt = asyncio.create_task(ann(slow, "ann"))
        await waiting.wait()
        await sweep(healthy)
        await ann(healthy, "ann")
        go_on.set()
        with pytest.raises(DenizenError, match="too late"):
            await attempt
        del slow.router.append  # type: ignore[method-assign]
        await sweep(healthy)
        await assert_consistent(healthy)


async def test_a_cancelled_request_leaves_the_rest_to_the_sweeper(world: World) -> None:
    async with world.gateway() as gateway:
        for number in range(20):
            task = asyncio.create_task(ann(gateway, f"u{number}"))
            for _ in range(number):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(ann(gateway, f"x{number}") for number in range(20)))  # whatever was queued is done now
        await sweep(gateway)
        await assert_consistent(gateway)


async def test_two_sweepers_and_the_gateway_itself_at_once(world: World) -> None:
    async with world.gateway() as gateway, world.gateway() as one, world.gateway() as other:
        ended = asyncio.Event()

        async def sweeping(by: Gateway) -> None:
            sweeper = Sweeper(by.router, by.names, grace_s=0.0)
            while not ended.is_set():
                await sweeper.sweep()

        sweepers = [asyncio.create_task(sweeping(by)) for by in (one, other, gateway)]
        results = await asyncio.gather(*(ann(gateway, f"u{n}") for n in range(150)), return_exceptions=True)
        ended.set()
        await asyncio.gather(*sweepers)
        await sweep(one)
        await assert_consistent(one)
        for number, result in enumerate(results):
            there = await has(one, email(f"u{number}@example.com")), await has(one, username(f"u{number}"))
            assert there == ((True, True) if isinstance(result, Written) else (False, False))
            assert isinstance(result, Written | DenizenError)


async def test_the_sweepers_grace_protects_what_is_under_way(world: World) -> None:
    async with world.gateway() as gateway, world.gateway() as healthy:
        crashing = Crashing(gateway, 2, done=False)
        with pytest.raises(Crash):
            await ann(gateway)
        await crashing.heal(gateway)
        assert await Sweeper(healthy.router, healthy.names, grace_s=30.0).sweep() == 0
        assert await Sweeper(healthy.router, healthy.names, grace_s=0.0).sweep() == 1
        assert (await ann(healthy)).user.version == 1


async def test_a_running_gateway_sweeps_by_itself(world: World) -> None:
    async with world.gateway() as gateway:
        crashing = Crashing(gateway, 2, done=False)
        with pytest.raises(Crash):
            await ann(gateway)
        await crashing.heal(gateway)
    async with world.gateway(sweep_grace_s=0.0) as healthy:
        for _ in range(500):
            try:
                await healthy.users.register(Registration(username="ann"), BY)
                break
            except LoginNameTaken:
                raise
            except DenizenError:
                await asyncio.sleep(0.02)
        await assert_consistent(healthy)


async def test_what_is_old_is_forgotten(world: World) -> None:
    async with world.gateway() as gateway:
        for store in gateway.router.stores.values():
            await store.read(
                lambda connection: connection.execute(
                    "insert into denizen.idempotency select now() - make_interval(hours => h), gen_random_uuid(), 1, 5,"
                    " h::text::bytea, '' from generate_series(20, 29) as h"
                )
            )
            await store.read(
                lambda connection: connection.execute(
                    "insert into denizen.cancelled_commands"
                    " select 5, gen_random_uuid(), now() - make_interval(hours => h) from generate_series(20, 29) as h"
                )
            )
        await gateway.sweeper.forget()
        for store in gateway.router.stores.values():
            for count in (
                "select count(*) from denizen.idempotency",
                "select count(*) from denizen.cancelled_commands",
            ):
                assert await store.read(lambda connection, count=count: connection.fetchval(count)) == 4
