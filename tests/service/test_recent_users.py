"""What a gateway remembers of users it wrote: only to decide on, never out of date in an answer, and not for long."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest

from denizen import limits
from denizen.errors import LoginNameTaken, UserDeleted, UserErased, VersionConflict, WrongStatus
from denizen.events.reading import END_OF_TIME
from denizen.events.records import StoredUser
from denizen.service.gateway import Gateway
from denizen.service.recent_users import RecentUsers
from denizen.sharding.ids import UserId
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import UserPatch
from denizen.users.state import Status, User

from .worlds import BY, World, ann


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes in quick succession is changed from memory too."""
    monkeypatch.setattr(limits, "recent_users_s_min", 0.0)


def reads(gateway: Gateway) -> Iterator[int]:
    """How often the gateway has read a user, each time it is asked."""
    count, user = 0, gateway.router.user

    async def counted(user_id: UserId) -> StoredUser | None:
        nonlocal count
        count += 1
        return await user(user_id)

    gateway.router.user = counted  # type: ignore[method-assign]
    while True:
        yield count


async def test_what_was_written_here_is_changed_without_reading_it(gateway: Gateway) -> None:
    user_id = (await ann(gateway)).user.id
    count = reads(gateway)
    next(count)
    for number in range(3):
        written = await gateway.users.change(user_id, UserPatch(attributes={"n": number}), context=BY)
    assert (written.user.version, next(count)) == (4, 0)
    assert await gateway.users.get(user_id) == written.user
    assert next(count) == 1  # answers are never from memory


async def test_another_gateways_change_is_never_overwritten(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        user_id = (await ann(one)).user.id
        await other.users.change(user_id, UserPatch(display_name="Ann"), context=BY)
        written = await one.users.change(user_id, UserPatch(country="DE"), context=BY)
        assert (written.user.version, written.user.user.display_name) == (3, "Ann")
        await assert_consistent(one)


async def test_what_is_refused_is_refused_by_the_truth(world: World) -> None:
    """Each time the other gateway makes right what this one's memory would refuse, or the other way round."""
    async with world.gateway() as one, world.gateway() as other:
        user_id = (await ann(one)).user.id
        await ann(one, "bob")

        await other.users.change(user_id, UserPatch(display_name="Ann"), context=BY)  # version 2, unknown to one
        with pytest.raises(VersionConflict) as conflict:
            await one.users.change(user_id, UserPatch(country="DE"), if_version=1, context=BY)
        assert conflict.value.facts == {"expected": 1, "actual": 2}
        assert (await one.users.change(user_id, UserPatch(country="DE"), if_version=2, context=BY)).user.version == 3

        await other.users.suspend(user_id, context=BY)
        assert (await one.users.reactivate(user_id, context=BY)).user.version == 5  # to one, it was not suspended
        await other.users.change(user_id, UserPatch(country="FR"), context=BY)
        same = await one.users.change(user_id, UserPatch(country="DE"), context=BY)  # to one, it was so already
        assert (same.user.version, same.user.user.country) == (7, "DE")

        await other.users.delete(user_id, context=BY)
        for patch in (
            UserPatch(country="FR"),
            UserPatch(email="bob@example.com"),
        ):  # the latter is taken, but no matter
            with pytest.raises(UserDeleted):
                await one.users.change(user_id, patch, context=BY)
        await one.names.drain()
        await other.names.drain()  # it gives the names of the deleted user back
        await assert_consistent(one)


async def test_a_name_that_is_taken_is_taken(gateway: Gateway) -> None:
    user_id = (await ann(gateway)).user.id
    await ann(gateway, "bob")
    with pytest.raises(LoginNameTaken):
        await gateway.users.change(user_id, UserPatch(email="bob@example.com"), context=BY)
    with pytest.raises(WrongStatus):
        await gateway.users.reactivate(user_id, context=BY)
    await assert_consistent(gateway)


async def test_nothing_is_remembered_of_who_was_erased(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        here, there = (await ann(one)).user.id, (await ann(one, "bob")).user.id
        await one.users.erase(here, context=BY)
        await other.users.erase(there, context=BY)
        for user_id in (here, there):
            with pytest.raises(UserErased):
                await one.users.change(user_id, UserPatch(country="FR"), context=BY)
        assert len(one.users._recent) == 0


def someone(number: int, status: Status = Status.ACTIVE) -> StoredUser:
    return StoredUser(UserId(UUID(int=number)), 1, END_OF_TIME, END_OF_TIME, User(status))


async def test_memory_is_bounded_in_number_and_in_time() -> None:
    recent = RecentUsers(users_max=10, kept_s=0.1)
    for number in range(100):
        recent.put(someone(number))
        assert len(recent) <= 10
    assert recent.get(UUID(int=99)) == someone(99)
    async with asyncio.timeout(5):
        while len(recent):  # by itself, without anybody asking
            await asyncio.sleep(0.01)
    recent.put(someone(1))
    recent.put(someone(1, Status.DELETED))
    assert recent.get(UUID(int=1)) is None


async def test_a_user_who_changes_in_quick_succession_is_read_each_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "recent_users_s_min", 60.0)
    user_id = (await ann(gateway)).user.id
    count = reads(gateway)
    next(count)
    for number in range(3):
        await gateway.users.change(user_id, UserPatch(attributes={"n": number}), context=BY)
    assert next(count) == 3
