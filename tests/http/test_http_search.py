"""Searching users over HTTP: the directory behind GET /v1/users."""

import re
import uuid
from itertools import product
from string import ascii_uppercase
from typing import Any
from urllib.parse import quote

from http_api import Api

from denizen.http.openapi import description
from denizen.users.places import COUNTRIES


def query(**parameters: str) -> str:
    return query_of("/v1/users", **parameters)


def query_of(path: str, **parameters: str) -> str:
    return f"{path}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())


async def found(api: Api, **parameters: str) -> list[str]:
    answer = await api("GET", query(**parameters))
    assert answer.status == 200, answer.raw
    return [user["email"] for user in answer.json["items"]]


async def test_a_session_finds_what_it_has_just_written(api: Api) -> None:
    word = uuid.uuid4().hex
    user = await api.user(name={"given": "Jürgen", "family": f"x{word}"}, attributes={"plan": word})
    answer = await api("GET", query(name=f"jurg x{word[:20]}", position=user["position"]))
    assert answer.json["stale"] is False
    expected = {name: value for name, value in user.items() if name != "position"}
    assert answer.json["items"] == [expected]
    assert await found(api, attributes=f'{{"plan":"{word}"}}', position=user["position"]) == [user["email"]]
    assert await found(api, email=user["email"][:20], sort="-created") == [user["email"]]


async def test_a_read_waits_for_all_writes_of_its_session(api: Api) -> None:
    word = uuid.uuid4().hex
    users = [await api.user(display_name=f"y{word}") for _ in range(6)]
    answer = await api("GET", query(name=f"y{word}", position=",".join(user["position"] for user in users)))
    assert answer.json["stale"] is False
    assert {user["id"] for user in answer.json["items"]} == {user["id"] for user in users}
    far = await api("GET", query(name=f"y{word}", position=f"{users[0]['position']},000-fffffff"))
    assert far.json["stale"] is True
    many = ",".join(["000-1"] * 17)
    assert (await api("GET", query(name="x", position=many))).code == "invalid_parameter"


async def test_a_position_that_does_not_come_is_said_to_be_stale(api: Api) -> None:
    answer = await api("GET", query(sort="name", position="000-fffffff"))
    assert (answer.status, answer.json["stale"]) == (200, True)


async def test_pages_are_followed_by_cursor_and_cursors_belong_to_their_search(api: Api) -> None:
    word = f"z{uuid.uuid4().hex}"
    users = [await api.user(display_name=f"{word} {number}") for number in range(5)]
    for user in users:
        await found(api, name=word, position=user["position"])
    seen: list[Any] = []
    more: dict[str, str] = {}
    while True:
        page = (await api("GET", query(name=word, sort="-updated", limit="2", **more))).json
        seen += [user["id"] for user in page["items"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
        assert (await api("GET", query(name=word, sort="updated", **more))).code == "invalid_parameter"
    assert seen == [user["id"] for user in reversed(users)]


async def test_what_cannot_be_searched_is_refused(api: Api) -> None:
    for name, value in [
        ("status", "deleted"), ("sort", "password"), ("name", ""), ("name", "a\0"), ("attributes", "{}"),
        ("attributes", '{"a":[1]}'), ("attributes", "x"), ("created_from", "yesterday"), ("cursor", "AAAA"),
        ("attributes", '{"plan":"a","plan":"b"}'), ("country", "Germany"), ("country", ""), ("country", "ß"),
        ("country", "XX"), ("country", "uk"), ("country", "ﬁ"), ("country", " DE"),
    ]:  # fmt: skip
        answer = await api("GET", query(**{"country": "DE", name: value}))
        assert (answer.status, answer.code) == (400, "invalid_parameter"), (name, value, answer.raw)
    assert (await api("GET", query(country="DE", position="nonsense"))).code == "invalid_parameter"
    assert (await api("GET", query(position="nonsense"))).code == "invalid_parameter"
    assert (await api("GET", query(position="000-1", limit="1"))).status == 200


async def test_a_country_is_found_in_either_case(api: Api) -> None:
    word = uuid.uuid4().hex
    user = await api.user(country="de", display_name=word)
    for country in ("DE", "de"):
        assert await found(api, name=word, country=country, position=user["position"]) == [user["email"]]
    assert await found(api, name=word, country="FR") == []


def test_the_description_knows_the_countries() -> None:
    parameters = description()["paths"]["/v1/users"]["get"]["parameters"]
    pattern = next(each for each in parameters if each["name"] == "country")["schema"]["pattern"]
    codes = ["".join(letters) for letters in product(ascii_uppercase, repeat=2)]
    assert {code for code in codes if re.search(pattern, code)} == COUNTRIES
    assert {code for code in codes if re.search(pattern, code.lower())} == COUNTRIES


async def test_activity_tells_what_was_done_to_a_user_page_by_page(api: Api) -> None:
    user = await api.user()
    changed = (await api("PATCH", f"/v1/users/{user['id']}", {"country": "DE"})).json
    first = (await api("GET", f"/v1/activity?user={user['id']}&limit=1&position={changed['position']}")).json
    assert [(item["type"], item["changes"]) for item in first["items"]] == [("ProfileChanged", ["country"])]
    assert first["stale"] is False
    second = (await api("GET", f"/v1/activity?user={user['id']}&limit=1&cursor={first['next_cursor']}")).json
    assert [item["type"] for item in second["items"]] == ["UserRegistered"]
    assert second["next_cursor"] is None
    assert (await api("GET", f"/v1/activity?actor=x&cursor={first['next_cursor']}")).code == "invalid_parameter"
    actor = first["items"][0]["actor"]
    assert (await api("GET", query_of("/v1/activity", actor=actor, limit="3"))).json["items"]


async def test_statistics_count_a_sign_up(api: Api) -> None:
    plan = uuid.uuid4().hex
    user = await api.user(country="IS", attributes={"plan": plan})
    found = (await api("GET", f"/v1/statistics?per=hour&position={user['position']}")).json
    assert found["by_plan"][plan] == 1
    assert found["by_country"]["IS"] >= 1
    assert found["users"] == sum(found["by_status"].values())
    assert sum(period["sign_ups"] for period in found["periods"]) >= 1
    first = await api("GET", "/v1/statistics?before=0001-01-01T00:00:00Z")
    assert (first.status, first.json["periods"]) == (200, [])
    assert (await api("GET", "/v1/statistics?per=week")).code == "invalid_parameter"
    assert (await api("GET", "/v1/statistics?since=1970-01-01T00:00:00Z")).code == "invalid_parameter"
