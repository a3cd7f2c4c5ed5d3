"""Explaining the rows of a read model by the events that made them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from http_api import Api


async def explained(api: Api, user_id: str, projection: str, position: str) -> Any:
    assert (await api("GET", f"/v1/activity?position={position}")).json["stale"] is False
    assert (await api("GET", f"/v1/users?sort=name&limit=1&position={position}")).json["stale"] is False
    assert (await api("GET", f"/v1/statistics?position={position}")).json["stale"] is False
    answer = await api("GET", f"/v1/users/{user_id}/explain?projection={projection}")
    assert answer.status == 200, answer.raw
    return answer.json


@asynccontextmanager
async def damaging(api: Api) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the read database, past everybody."""
    reads = api.server.services.reads
    assert reads is not None
    connection = await asyncpg.connect(**reads.connect_args)
    try:
        yield connection
    finally:
        await connection.close()


async def changed_user(api: Api) -> Any:
    user = await api.user(display_name="Ann Smith", attributes={"plan": "gold"})
    return (await api("PATCH", f"/v1/users/{user['id']}", {"country": "DE"})).json


async def test_a_row_is_shown_with_the_events_that_made_it(api: Api) -> None:
    user = await changed_user(api)
    found = await explained(api, user["id"], "directory", user["position"])
    assert (found["agrees"], found["projection"], found["version"]) == (True, "directory", 1)
    assert [(event["type"], event["applied"]) for event in found["events"]] == [
        ("UserRegistered", True), ("ProfileChanged", True),
    ]  # fmt: skip
    rows = {table["table"]: table for table in found["tables"]}
    assert rows["directory"]["stored"] == rows["directory"]["expected"]
    assert rows["directory"]["stored"][0]["country"] == "DE"
    assert {row["term"] for row in rows["directory_terms"]["stored"]} == {"n:ann", "n:smith"}
    assert found["parked"] is None


@pytest.mark.parametrize(("projection", "table"), [("activity", "activity"), ("statistics", "statistics_users")])
async def test_every_read_model_can_be_explained(api: Api, projection: str, table: str) -> None:
    user = await changed_user(api)
    found = await explained(api, user["id"], projection, user["position"])
    assert found["agrees"] is True
    rows = {each["table"]: each for each in found["tables"]}
    assert rows[table]["stored"]
    if projection == "statistics":  # what is counted over all users is not any user's
        assert rows["statistics_counts"]["stored"] is None
        assert {(row["dimension"], row["value"], row["users"]) for row in rows["statistics_counts"]["expected"]} == {
            ("status", "active", 1), ("country", "DE", 1), ("plan", "gold", 1),
        }  # fmt: skip


async def test_a_row_that_is_wrong_is_told_apart(api: Api) -> None:
    user = await changed_user(api)
    await explained(api, user["id"], "directory", user["position"])
    async with damaging(api) as connection:
        await connection.execute("update denizen_read.directory_v1 set country = 'XX' where user_id = $1", user["id"])
    found = await explained(api, user["id"], "directory", user["position"])
    assert found["agrees"] is False
    wrong = [table["table"] for table in found["tables"] if not table["agrees"]]
    assert wrong == ["directory"]


async def test_nobody_and_nothing_cannot_be_explained(api: Api) -> None:
    nobody = "01890a5d-ac96-8b2f-8d0a-3c1f2e4d5b6a"
    assert (await api("GET", f"/v1/users/{nobody}/explain")).code == "user_not_found"
    user = await api.user()
    assert (await api("GET", f"/v1/users/{user['id']}/explain?projection=no")).code == "invalid_parameter"
