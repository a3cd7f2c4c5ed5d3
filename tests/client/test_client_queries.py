"""The client's queries: search, activity, statistics, explanations and the feed of changes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from denizen.client import Client, Problem
from denizen.client.errors import ReplayRefused
from denizen.testing.http import RunningServer, running_server
from denizen.testing.postgres import ThrowawayServer


def some_email() -> str:
    return f"{uuid4().hex}@example.org"


@pytest.fixture(scope="module")
def server(postgres_server: ThrowawayServer) -> Iterator[RunningServer]:
    """A server with read models."""
    databases = [postgres_server.create_database() for _ in range(2)]
    read_database = postgres_server.create_database(template="template0")
    with running_server(databases, read_database=read_database) as running:
        yield running
    for database in (*databases, read_database):
        postgres_server.drop_database(database)


async def test_users_are_searched_over_all_pages(client: Client) -> None:
    word = f"w{uuid4().hex}"
    users = [
        await client.create_user(email=some_email(), display_name=f"{word} {n}", attributes={"n": n}) for n in range(3)
    ]
    for user in users:
        found = await client.search_page(name=word, position=user.position, sort="-created")
    assert (found.stale, [user.id for user in found.items]) == (False, [user.id for user in reversed(users)])
    assert [user.id async for user in client.search(name=word, sort="created", page=1)] == [user.id for user in users]
    one = [user.id async for user in client.search(name=word, attributes={"n": 1}, created_from=users[0].created_at)]
    assert one == [users[1].id]


async def test_activity_statistics_and_explanations(client: Client) -> None:
    user = await client.create_user(email=some_email(), country="IS")
    user = await client.change_user(user.id, {"country": "DE"})
    seen = [each.type async for each in client.activity(user=user.id, position=user.position, page=1)]
    assert seen == ["ProfileChanged", "UserRegistered"]
    assert (await client.statistics(per="hour", position=user.position)).by_country["DE"] >= 1
    explained = await client.explain(user.id, "activity")
    assert (explained.agrees, [event.type for event in explained.events]) == (
        True,
        ["UserRegistered", "ProfileChanged"],
    )


async def test_changes_are_followed_and_gone_on_with(client: Client) -> None:
    feed = client.changes(start="now", wait_s=0)
    start = await anext(feed)
    made = {(await client.create_user(email=some_email())).id for _ in range(5)}
    got, cursor = [], start.next_cursor
    async for page in client.changes(cursor, limit=2, wait_s=5):
        got += [item.user_id for item in page.items]
        if made <= set(got):
            break
    assert len(got) == len(set(got)) == 5
    later = await client.create_user(email=some_email())
    cursor = page.next_cursor
    async for page in client.changes(cursor, types=["UserRegistered"], wait_s=5):
        if page.items:
            assert [item.user_id for item in page.items] == [later.id]
            break


async def test_read_models_are_looked_after(client: Client) -> None:
    names = {version.projection for version in (await client.replays.projections()).versions}
    assert {"directory", "activity", "statistics"} <= names
    assert (await client.replays.plan("directory")).version == 2
    assert await client.replays.all() == []
    await client.replays.pause_projection("activity")
    await client.replays.resume_projection("activity")


async def test_parked_users_are_tried_again_or_passed_over(client: Client, server: RunningServer) -> None:
    user = (await client.create_user(email=some_email())).id
    for act in (client.replays.retry, client.replays.skip):
        with pytest.raises(ReplayRefused, match="not parked"):
            await act("activity", user)
    park = "insert into denizen_read.parked values ('activity', 99, $1, 1, 0, 1, 'UserRegistered', 'poison')"
    async with read_database(server) as connection:
        await connection.execute(park, user)  # in a version that no projector looks after
        for act, wish in ((client.replays.retry, "retry"), (client.replays.skip, "skip")):
            await act("activity", user)
            assert [each.wish for each in (await client.replays.projections()).parked] == [wish]
        await connection.execute("delete from denizen_read.parked where version = 99")


async def test_what_a_projection_left_that_is_gone_is_removed(client: Client, server: RunningServer) -> None:
    async with read_database(server) as connection:
        await connection.execute("create table denizen_read.gone_v3 (user_id uuid)")
        await connection.execute(
            "insert into denizen_read.projections (projection, version, state, live, definition)"
            " values ('gone', 3, 'paused', true, 'gone:rows')"
        )
        assert await client.replays.cancel("gone", 3) == 3
        assert await connection.fetchval("select to_regclass('denizen_read.gone_v3')") is None
    with pytest.raises(Problem, match="there is no projection gone; there are activity") as caught:
        await client.replays.cancel("gone", 3)
    assert (caught.value.code, caught.value.status) == ("projection_not_found", 404)


@asynccontextmanager
async def read_database(server: RunningServer) -> AsyncIterator[asyncpg.Connection]:
    assert server.services.control is not None
    connection = await asyncpg.connect(**server.services.control.connect_args)
    yield connection
    await connection.close()
