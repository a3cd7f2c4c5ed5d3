"""Erasing a user whom another gateway changes without a pause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from denizen.errors import UserErased
from denizen.service.gateway import Gateway
from denizen.testing.consistency import assert_consistent
from denizen.testing.gateway import running_gateway
from denizen.testing.postgres import Database
from denizen.users.commands import UserPatch

from .people import BY, Person, somebody, traces


async def test_an_erasure_wins_against_who_changes_the_user_without_a_pause(
    gateway: Gateway, databases: list[Database]
) -> None:
    async with running_gateway(databases, sweep_grace_s=3600.0) as other:
        for _ in range(5):
            person = await somebody(gateway)
            async with changed_without_a_pause(other, person):
                certificate = await gateway.erasures.erase(person.id, BY)
            assert certificate.settled_at is not None
            assert await traces(databases, person.mark) == []
    await assert_consistent(gateway)


@asynccontextmanager
async def changed_without_a_pause(gateway: Gateway, person: Person) -> AsyncIterator[None]:
    """The user gets one attribute after the other, and the last one when it is erased."""
    begun = asyncio.Event()

    async def change() -> None:
        number = 0
        while True:
            number += 1
            try:
                await gateway.users.change(person.id, UserPatch(attributes={"n": number}), context=BY)
            except UserErased:
                return
            begun.set()

    changing = asyncio.create_task(change())
    try:
        await begun.wait()
        yield
        async with asyncio.timeout(10):
            await changing
    finally:
        changing.cancel()
