"""The directory: found by words in any script, prefixes, filters; sorted; pages under change."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from denizen import limits
from denizen.errors import Overloaded, SearchTooBroad
from denizen.events.records import encode_state
from denizen.projections import registry
from denizen.projections.database import connect_writer
from denizen.projections.directory.model import DIRECTORY, STATE, attribute_term
from denizen.projections.directory.search import search
from denizen.projections.directory.wanted import SORTS, Search
from denizen.projections.directory.words import words_of
from denizen.projections.reading import ReadModels
from denizen.projections.runner import Runner
from denizen.projections.tables import SCHEMA
from denizen.testing.postgres import Database
from denizen.testing.projections import History, MemoryModel
from denizen.users.events import (
    AttributesChanged,
    EmailChanged,
    ProfileChanged,
    UserDeleted,
    UserErased,
    UserSuspended,
)
from denizen.users.evolve import fold
from denizen.users.state import Name


class People:
    """A directory with people in it, and a way to ask it."""

    def __init__(self, runner: Runner, reads: ReadModels) -> None:
        self.history = History()
        self._runner, self._reads = runner, reads

    def person(self, given: str, family: str, **fields: Any) -> UUID:
        return self.history.register(name=Name(given, family), **fields)

    async def execute(self, statement: str) -> None:
        await self._runner._connection.execute(statement)

    async def ask(self, *, limit: int = 50, **wanted: Any) -> list[UUID]:
        """Every user found, page by page."""
        await self._runner.apply(self.history.events)
        users: list[UUID] = []
        place = None
        while True:
            async with self._reads.reader() as connection:
                found = await search(connection, Search(limit=limit, after=place, **wanted))
            users += [user.id for user in found.users]
            place = found.next
            if place is None:
                return users


@pytest.fixture
async def people(read_database: Database) -> AsyncIterator[People]:
    connection = await connect_writer(read_database.connect_args)
    async with connection.transaction():
        await registry.create_version(connection, DIRECTORY, 1, state="running", indexed=True)
        await registry.make_live(connection, DIRECTORY, 1)
    runner = Runner(connection, DIRECTORY, 1)
    await runner.open()
    async with ReadModels(read_database.connect_args) as reads:
        yield People(runner, reads)
    await connection.close()


NAMES = [
    ("Jürgen", "Müller", ["mull", "MÜLLER", "jur mul", "müll jü"]),
    ("Jean-Luc", "O’Neil", ["luc", "oneil", "o'n", "jean-l"]),
    ("Владимир", "Ёлкин", ["влад", "ЕЛК", "ёлкин"]),
    ("太郎", "山田", ["山田", "太", "郎"]),
    ("सुनीता", "शर्मा", ["सुनी", "शर्मा"]),
    ("محمد", "علي", ["محم", "علي"]),
    ("철수", "김", ["김", "철수"]),
    ("Łukasz", "Żółć", ["luk", "zolc"]),
    ("Ｊｏ", "ＳＭＩＴＨ", ["jo smi"]),
]


async def test_names_are_found_by_the_beginning_of_their_words(people: People) -> None:
    people.person("Zoë", "Quinn")
    for given, family, asked in NAMES:
        wanted = people.person(given, family)
        for text in asked:
            assert await people.ask(name=text) == [wanted], text
        assert await people.ask(name=f"{given} quinn") == []
    assert await people.ask(name="?") == []


async def test_a_user_with_two_fitting_words_is_found_once(people: People) -> None:
    both = people.person("Jo", "Johnson")
    other = people.person("Joan", "Smith")
    assert await people.ask(name="jo", limit=1) == [both, other]
    assert await people.ask(name="jo", limit=1, descending=True) == [other, both]


async def test_login_names_are_found_by_their_beginning(people: People) -> None:
    ann = people.person("Ann", "A", email="Ann.Smith@Example.com", username="ANN")
    bob = people.person("Bob", "B", email="ann.taylor@example.com", username="annabel")
    people.person("Cy", "C", email="cy@example.com")
    assert await people.ask(email="ann.") == [ann, bob]
    assert await people.ask(email="ann.smith@example.com") == [ann]
    assert await people.ask(username="ann", sort="created", descending=True) == [bob, ann]
    people.history.record(ann, EmailChanged("new@example.com"))
    assert await people.ask(email="ann.") == [bob]
    assert await people.ask(email="new") == [ann]


async def test_filters_hold_together(people: People) -> None:
    ann = people.person("Ann", "A", country="DE", attributes={"plan": "gold", "seats": 5, "tags": ["x"]})
    bob = people.person("Bob", "B", country="DE", attributes={"plan": "gold", "seats": 7, "active": True})
    cy = people.person("Cy", "C", country="FR", attributes={"plan": "free"})
    people.history.record(bob, UserSuspended())
    gold, seats = attribute_term("plan", "gold"), attribute_term("seats", 5)
    assert gold
    assert seats
    assert await people.ask(country="DE") == [ann, bob]
    assert await people.ask(country="DE", status=2) == [bob]
    assert await people.ask(attributes=(gold,)) == [ann, bob]
    assert await people.ask(attributes=(gold, seats)) == [ann]
    assert await people.ask(attributes=(attribute_term("active", True),), country="DE", name="bo") == [bob]
    assert await people.ask(created_from=people.history.events[2].recorded_at) == [cy]
    assert await people.ask(updated_before=people.history.events[2].recorded_at) == [ann]
    assert await people.ask(attributes=(gold,), sort="updated", descending=True) == [bob, ann]
    people.history.record(ann, AttributesChanged(changed={"plan": "free"}, removed=["seats"]))
    assert await people.ask(attributes=(gold,)) == [bob]


async def test_users_that_are_deleted_or_erased_are_gone(people: People) -> None:
    ann, bob, cy = (people.person(name, "Smith", attributes={"plan": "gold"}) for name in ("Ann", "Bob", "Cy"))
    assert await people.ask(name="smith") == sorted([ann, bob, cy])
    people.history.record(ann, UserDeleted())
    people.history.record(bob, UserErased())
    people.history.record(bob, ProfileChanged(display_name="again"))
    assert await people.ask(name="smith") == [cy]
    assert await people.ask() == [cy]


async def test_pages_of_any_size_give_everyone_once_in_order(people: People) -> None:
    for number in range(23):
        people.person(f"Same{number % 3}", "Name", email=f"u{number % 7}.{number}@example.com", username=f"n{number}")
    for sort in (None, *SORTS):
        for descending in (False, True):
            whole = await people.ask(sort=sort, descending=descending)
            assert len(set(whole)) == 23
            for limit in (4, 22, 23):
                assert await people.ask(sort=sort, descending=descending, limit=limit) == whole


SMALL = {"walk_rows": 2, "probe_rows": 1, "collect_rows": 3, "walk_rows_max": 6, "words_max": 2, "words_finished": 2}


@pytest.mark.parametrize("bounds", [{}, SMALL, SMALL | {"words_max": 32}, SMALL | {"collect_rows": 100}])
async def test_every_way_through_a_search_gives_the_same_pages(
    people: People, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int]
) -> None:
    for name, value in bounds.items():
        monkeypatch.setattr(limits, f"search_{name}", value)
    crowd = []
    for number in range(40):
        given, family = ("Ann", "Anna", "Jo")[number % 3], ("Smith", "Anders", "O'Neil", "B\\ack")[number // 3 % 4]
        country, plan = ("DE", "FR")[number // 12 % 2], ("it's gold", "free\\")[number // 6 % 2]
        user = people.person(given, family, country=country, attributes={"plan": plan})
        crowd.append((user, given.lower(), words_of(family), country, plan))
    people.history.record(crowd[7][0], UserSuspended())

    def fits(person: tuple[UUID, str, tuple[str, ...], str, str], wanted: dict[str, Any]) -> bool:
        _, given, family, country, plan = person
        words = wanted.get("name", "").split()
        return (
            all(any(word.startswith(asked) for word in (given, *family)) for asked in words)
            and wanted.get("country") in (None, country)
            and wanted.get("attributes") in (None, (f"a:plan={plan}",))
            and wanted.get("status") in (None, 2 if person[0] == crowd[7][0] else 1)
        )

    names = [{}, {"name": "an"}, {"name": "an anna"}, {"name": "ann smi"}, {"name": "jo an"}, {"name": "an an"}]
    others = [{}, {"country": "FR"}, {"attributes": ("a:plan=free\\",), "country": "DE"}, {"status": 1}, {"status": 2}]
    for name in names:
        for other in others:
            wanted = name | other | {"attributes": other.get("attributes")}
            wanted = {key: value for key, value in wanted.items() if value is not None}
            expected = {person[0] for person in crowd if fits(person, wanted)}
            for sort in (None, "created", "name"):
                found = await people.ask(**wanted, sort=sort, descending=sort == "name", limit=3)
                assert len(found) == len(set(found))
                assert set(found) == expected, (wanted, sort)
                assert found == await people.ask(**wanted, sort=sort, descending=sort == "name")


async def test_more_words_than_a_user_has_are_not_searched_for(people: People) -> None:
    people.person(" ".join("abcdefghijklm"), " ".join("nopqrstuvwxyz"))
    assert len(await people.ask(name=" ".join("abcdefghijklmnopqrstuvwx"))) == 1
    assert await people.ask(name=" ".join("abcdefghijklmnopqrstuvwxy")) == []


async def test_a_search_that_takes_too_long_is_too_broad(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people.person("Ann", "A", country="DE")
    people.person("Bob", "B", country="FR")
    await people.ask()
    columns = ", ".join(STATE.names[1:])
    for country, number in (("DE", 10), ("FR", 20_000)):
        await people.execute(
            f"insert into {SCHEMA}.{STATE.at(1)} (user_id, {columns}) select gen_random_uuid(), {columns}"  # noqa: S608
            f" from {SCHEMA}.{STATE.at(1)}, generate_series(1, {number}) where country = '{country}'"
        )
    for name, value in {"walk_rows": 2, "collect_rows": 3, "long_ms": 1}.items():
        monkeypatch.setattr(limits, f"search_{name}", value)
    with pytest.raises(SearchTooBroad) as caught:
        await people.ask(country="DE", sort="created", descending=True)
    assert (caught.value.status, caught.value.retryable) == (422, False)
    monkeypatch.undo()
    assert len(await people.ask(country="DE", sort="created", descending=True)) == 11


async def test_long_searches_take_turns_and_leave_half_of_the_connections(read_database: Database) -> None:
    async with ReadModels(read_database.connect_args, connections=4) as reads:
        first, second = reads.long_search(), reads.long_search()
        async with first:
            waiting = asyncio.create_task(second.__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await reads.long_search().__aenter__()
            assert not waiting.done()
        await waiting
        await second.__aexit__(None, None, None)
        async with reads.long_search():
            pass


async def test_pages_neither_repeat_nor_skip_while_users_come_change_and_go(people: People) -> None:
    stay = [people.person("Jo", f"Stay{number:02}") for number in range(12)]
    gone = [people.person("Jo", f"Gone{number:02}") for number in range(12)]
    seen: list[UUID] = []
    place = None
    reads = people._reads
    turns = iter(gone)
    while True:
        await people._runner.apply(people.history.events)
        async with reads.reader() as connection:
            found = await search(connection, Search(limit=2, name="jo", after=place))
        seen += [user.id for user in found.users]
        if (place := found.next) is None:
            break
        people.person("Jo", "New")
        if (leaves := next(turns, None)) is not None:
            people.history.record(leaves, UserDeleted())
        people.history.record(stay[len(seen) % 12], AttributesChanged(changed={"n": len(seen)}))
    assert len(seen) == len(set(seen))
    assert set(stay) <= set(seen)


async def test_a_document_is_the_fold_without_the_password(people: People) -> None:
    ann = people.person("Ann", "A", password="$argon2id$secret", attributes={"deep": {"x": [1]}})
    model = MemoryModel(DIRECTORY)
    model.apply(people.history.events)
    state = fold(event.event for event in people.history.events)  # type: ignore[misc]
    document = model.row(ann).document
    assert b"argon2id" not in document
    assert document == encode_state(state).replace(b"\xb0$argon2id$secret", b"\xa3set")  # type: ignore[arg-type]
