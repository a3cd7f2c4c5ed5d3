"""Erasing a user: nothing of it can be read afterwards, everything else stays as it was."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from denizen.errors import ErasureNotFound, UserErased, UserNotFound
from denizen.service.gateway import Gateway
from denizen.sharding.ids import mint_user_id
from denizen.testing.consistency import assert_consistent
from denizen.testing.postgres import Database
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import DataErased
from denizen.users.events import UserErased as Erased
from denizen.users.login_names import LoginName, LoginNameKind

from .people import BY, secrets_of, somebody, traces


async def test_nothing_of_an_erased_user_is_left_in_any_table(gateway: Gateway, databases: list[Database]) -> None:
    person, neighbour = await somebody(gateway), await somebody(gateway)
    assert await traces(databases, person.mark)
    certificate = await gateway.erasures.erase(person.id, BY)
    assert await traces(databases, person.mark) == []
    assert await secrets_of(databases, person.id) == []
    assert (certificate.events, certificate.login_names) == (person.version, 2)
    assert certificate.settled_at is not None
    assert certificate.scrubbed_at is None
    assert (await gateway.users.get(neighbour.id)).version == neighbour.version
    assert len(await gateway.users.history(neighbour.id, limit=100)) == neighbour.version
    await assert_consistent(gateway)


async def test_what_an_erased_user_answers(gateway: Gateway) -> None:
    person = await somebody(gateway)
    before = datetime.now(UTC)
    await gateway.erasures.erase(person.id, BY)
    with pytest.raises(UserErased):
        await gateway.users.get(person.id)
    with pytest.raises(UserErased):
        await gateway.users.get_as_of(person.id, version=1)
    with pytest.raises(UserErased):
        await gateway.users.get_as_of(person.id, time=before)
    with pytest.raises(UserErased):
        await gateway.users.change(person.id, UserPatch(display_name="x"), context=BY)
    with pytest.raises(UserNotFound):
        await gateway.users.find(LoginName(LoginNameKind.EMAIL, f"{person.mark}@example.com"))
    history = await gateway.users.history(person.id, limit=100)
    assert [event.version for event in history] == list(range(1, person.version + 2))
    assert history[0].type == "UserRegistered"
    assert {type(event.event) for event in history[:-1]} == {DataErased}
    assert history[-1].event == Erased(2)
    assert [user.id for user in await gateway.users.list_users()] == []


async def test_erasing_again_gives_the_same_certificate(gateway: Gateway) -> None:
    person = await somebody(gateway)
    first = await gateway.erasures.erase(person.id, BY)
    assert await gateway.erasures.erase(person.id, BY) == first
    assert await gateway.erasures.certificate(person.id) == first
    assert [each.user_id for each in await gateway.erasures.newest(limit=10)] == [person.id]


async def test_erasures_of_one_user_at_once_are_one(gateway: Gateway, databases: list[Database]) -> None:
    person = await somebody(gateway)
    certificates = await asyncio.gather(*(gateway.erasures.erase(person.id, BY) for _ in range(8)))
    assert {each.position for each in certificates} == {certificates[0].position}
    assert (await gateway.users.history(person.id, limit=100))[-1].version == person.version + 1
    assert await traces(databases, person.mark) == []


async def test_users_who_are_suspended_or_deleted_are_erased_too(gateway: Gateway, databases: list[Database]) -> None:
    suspended, deleted = await somebody(gateway), await somebody(gateway)
    await gateway.users.suspend(suspended.id, "for now", context=BY)
    await gateway.users.delete(deleted.id, f"{deleted.mark} asked", context=BY)
    await gateway.names.drain()
    for person, names in ((suspended, 2), (deleted, 0)):
        certificate = await gateway.erasures.erase(person.id, BY)
        assert certificate.login_names == names
        assert await traces(databases, person.mark) == []
    await assert_consistent(gateway)


async def test_the_login_names_are_free_for_others(gateway: Gateway, databases: list[Database]) -> None:
    person = await somebody(gateway)
    await gateway.erasures.erase(person.id, BY)
    names = Registration(email=f"{person.mark}.second@example.com", username=f"{person.mark}w")
    other = (await gateway.users.register(names, BY)).user
    await gateway.names.drain()
    assert (await gateway.users.find(LoginName(LoginNameKind.USERNAME, f"{person.mark}w"))).id == other.id
    await gateway.erasures.erase(person.id, BY)  # again: it must not touch what is another one's by now
    assert (
        await gateway.users.find(LoginName(LoginNameKind.EMAIL, f"{person.mark}.second@example.com"))
    ).id == other.id
    await assert_consistent(gateway)


async def test_nobody_and_somebody_who_was_not_erased(gateway: Gateway) -> None:
    person = await somebody(gateway)
    with pytest.raises(UserNotFound):
        await gateway.erasures.erase(mint_user_id(person.id.int >> 64 & 0xFFF, 0), BY)  # type: ignore[arg-type]
    with pytest.raises(ErasureNotFound):
        await gateway.erasures.certificate(person.id)


async def test_a_user_without_a_state_row_is_erased_by_its_stream(gateway: Gateway, databases: list[Database]) -> None:
    person = await somebody(gateway)
    for database in databases:
        connection = await asyncpg.connect(**database.connect_args)
        await connection.execute("delete from denizen.users where id = $1", person.id)
        await connection.close()
    await gateway.erasures.erase(person.id, BY)
    assert await traces(databases, person.mark) == []
    await assert_consistent(gateway)


async def test_erasing_while_the_user_changes_leaves_nothing(gateway: Gateway, databases: list[Database]) -> None:
    people = [await somebody(gateway) for _ in range(4)]
    ended = asyncio.Event()

    async def change(person_id: object, mark: str) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            patch = UserPatch(username=f"{mark}x{number}", display_name=f"{mark} {number}")
            try:
                await gateway.users.change(person_id, patch, context=BY)  # type: ignore[arg-type]
            except UserErased:
                return

    changing = [asyncio.create_task(change(each.id, each.mark)) for each in people]
    await asyncio.gather(*(gateway.erasures.erase(each.id, BY) for each in people))
    async with asyncio.timeout(20):
        await asyncio.gather(*changing)
    ended.set()
    await gateway.names.drain()
    for each in people:
        await gateway.erasures.settle(each.id)
        assert await traces(databases, each.mark) == []
    await assert_consistent(gateway)
