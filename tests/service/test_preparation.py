"""A command that changes names elsewhere and loses races: what it prepared is kept for it, and is not left over."""

from collections import Counter
from contextlib import suppress
from uuid import UUID

import pytest

from denizen import limits
from denizen.errors import Unavailable, VersionConflict
from denizen.events.records import Append, Outcome, Result
from denizen.service import Written
from denizen.service.gateway import Gateway
from denizen.testing.consistency import assert_consistent
from denizen.users.commands import UserPatch

from .worlds import BY, Crash, Crashing, World, ann, email, sweep, username


class Losing:
    """Has another gateway be faster, `times` times, whenever this one appends to a user's stream."""

    def __init__(self, gateway: Gateway, other: Gateway, times: int) -> None:
        self._append, self._other, self.left = gateway.router.append, other, times
        self.actions: Counter[str] = Counter()  # what was done to login names elsewhere
        self.commands: list[UUID] = []  # each attempt's
        gateway.router.append = self.append  # type: ignore[method-assign]

    async def append(self, append: Append) -> Outcome:
        if append.state is None:
            self.actions += Counter(action.action for action in append.names)
            return await self._append(append)
        self.commands.append(append.command_id)
        if self.left:
            self.left -= 1
            await self.interfere(UUID(int=append.stream.int))
        return await self._append(append)

    async def interfere(self, user_id: UUID) -> None:
        await self._other.users.change(user_id, UserPatch(attributes={"left": self.left}), context=BY)


async def both_elsewhere(gateway: Gateway, tag: str = "ann") -> Written:
    """A user with two login names, both in other buckets than its own."""
    first = await ann(gateway, f"first-{tag}")
    written = await gateway.users.change(first.user.id, UserPatch(email=f"{tag}@example.com", username=tag), context=BY)
    await gateway.names.drain()
    return written


async def states(gateway: Gateway, tag: str = "ann") -> list[str | None]:
    records = [await gateway.router.name(name) for name in (email(f"{tag}@example.com"), username(tag))]
    return [record and record.state for record in records]


async def test_names_are_prepared_once_however_often_the_race_is_lost(world: World) -> None:
    async with world.gateway() as gateway, world.gateway() as other:
        user_id = (await both_elsewhere(gateway)).user.id
        losing = Losing(gateway, other, 5)
        await gateway.users.delete(user_id, context=BY)
        await gateway.names.drain()
        assert losing.actions == {"leave": 2}
        assert len(losing.commands) > 5
        assert len(set(losing.commands)) == 1
        assert await states(gateway) == [None, None]
        await assert_consistent(gateway)


@pytest.mark.parametrize("insists", [False, True], ids=["after all attempts", "on a version"])
async def test_a_command_that_gives_up_gives_its_names_back(world: World, insists: bool) -> None:
    async with world.gateway() as gateway, world.gateway() as other:
        stored = (await both_elsewhere(gateway)).user
        Losing(gateway, other, 100)
        with pytest.raises(VersionConflict if insists else Unavailable):
            await gateway.users.delete(stored.id, if_version=stored.version if insists else None, context=BY)
        assert await states(gateway) == ["held", "held"]
        await assert_consistent(gateway)


async def test_other_names_after_a_lost_race_are_prepared_anew(world: World) -> None:
    class Renaming(Losing):
        async def interfere(self, user_id: UUID) -> None:
            await self._other.users.change(user_id, UserPatch(email="second@example.com"), context=BY)
            await self._other.names.drain()

    async with world.gateway() as gateway, world.gateway() as other:
        user_id = (await ann(gateway)).user.id  # whose email lives with the user at first
        losing = Renaming(gateway, other, 1)
        await gateway.users.delete(user_id, context=BY)
        await gateway.names.drain()
        assert losing.actions == {"leave": 3, "restore": 1}
        assert len(set(losing.commands)) == 2
        assert await states(gateway) == await states(gateway, "second") == [None, None]
        await assert_consistent(gateway)


async def test_names_are_not_kept_for_longer_than_others_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "names_prepared_s", 0.0)
    async with world.gateway() as gateway, world.gateway() as other:
        user_id = (await both_elsewhere(gateway)).user.id
        losing = Losing(gateway, other, 3)
        await gateway.users.delete(user_id, context=BY)
        await gateway.names.drain()
        assert losing.actions == {"leave": 2 * len(losing.commands), "restore": 2 * (len(losing.commands) - 1)}
        assert len(set(losing.commands)) == len(losing.commands) > 3
        assert await states(gateway) == [None, None]
        await assert_consistent(gateway)


async def test_a_command_that_was_swept_while_it_lost_is_not_done(world: World) -> None:
    class Sweeping(Losing):
        async def interfere(self, user_id: UUID) -> None:
            await super().interfere(user_id)
            if self.left == 0:
                await sweep(self._other)

    async with world.gateway() as gateway, world.gateway() as other:
        user_id = (await both_elsewhere(gateway)).user.id
        Sweeping(gateway, other, 3)
        with pytest.raises(Unavailable):
            await gateway.users.delete(user_id, context=BY)
        assert await states(gateway) == ["held", "held"]
        assert (await gateway.users.get(user_id)).id == user_id
        await assert_consistent(gateway)


async def test_a_gateway_that_ends_after_a_lost_race_leaves_all_or_nothing(world: World) -> None:
    async with world.gateway() as gateway, world.gateway() as other:
        for step in range(1, 20):
            tag = f"u{step}"
            user_id = (await both_elsewhere(gateway, tag)).user.id
            Losing(gateway, other, 2)
            crashing = Crashing(gateway, step, done=step % 2 == 0)
            with suppress(Crash):
                await gateway.users.delete(user_id, context=BY)
            await crashing.heal(gateway)
            del gateway.router.append  # type: ignore[method-assign]
            if not crashing.crashed:
                break
            await sweep(other)
            await assert_consistent(other)
            assert crashing.last is not None
            late = await other.router.append(crashing.last)
            if crashing.last.state is not None:
                assert late.result in {Result.CANCELLED, Result.VERSION_CONFLICT, Result.REPEATED}
            await sweep(other)
            await assert_consistent(other)
            assert await states(other, tag) in (["held", "held"], [None, None])
        assert step > 5
