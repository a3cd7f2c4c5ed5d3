"""Users over HTTP: create, get, change, suspend, reactivate, delete, history, list."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from http_api import Api, some_email

from denizen.testing.http import running_server
from denizen.testing.postgres import ThrowawayServer


async def test_a_created_user_is_answered_with_its_place_version_and_position(api: Api) -> None:
    email = some_email()
    answer = await api("POST", "/v1/users", {"email": email, "name": {"given": "Ada"}, "attributes": {"plan": "pro"}})
    user = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"/v1/users/{user['id']}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["denizen-position"] == user["position"]
    assert (user["version"], user["status"], user["email"]) == (1, "active", email)
    assert user["name"] == {"given": "Ada", "family": None}
    assert user["attributes"] == {"plan": "pro"}
    assert user["has_password"] is False
    got = await api("GET", answer.headers["location"])
    del user["position"]
    assert got.json == user


async def test_a_password_is_kept_but_never_shown(api: Api) -> None:
    user = await api.user(password="correct horse battery")
    history = await api("GET", f"/v1/users/{user['id']}/events")
    assert user["has_password"] is True
    assert b"argon2" not in history.raw
    assert history.json["items"][0]["data"]["password_set"] is True


async def test_a_login_name_in_another_spelling_is_taken(api: Api) -> None:
    user = await api.user(username=f"Ada.{uuid4().hex}")
    email = await api("POST", "/v1/users", {"email": user["email"].upper()})
    name = await api("POST", "/v1/users", {"email": some_email(), "username": user["username"].upper()})
    assert (email.status, email.code, email.json["kind"]) == (409, "login_name_taken", "email")
    assert (name.status, name.code, name.json["kind"]) == (409, "login_name_taken", "username")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, None, "login_name_required"),
        ({"email": "nobody"}, "email", "email_invalid"),
        ({"username": "-x"}, "username", "username_invalid"),
        ({"email": "a@example.org", "country": "XX"}, "country", "country_invalid"),
        ({"email": "a@example.org", "time_zone": "Moon/Crater"}, "time_zone", "time_zone_invalid"),
        ({"email": "a@example.org", "picture_url": "ftp://x/y"}, "picture_url", "picture_url_invalid"),
        ({"email": "a@example.org", "name": {"given": 1}}, "name.given", "wrong_type"),
        ({"email": "a@example.org", "name": {"first": "A"}}, "name.first", "unknown_field"),
        ({"email": "a@example.org", "admin": True}, "admin", "unknown_field"),
        ({"email": "a@example.org", "password_hash": "x"}, "password_hash", "unknown_field"),
        ({"email": "a@example.org", "password": "short"}, "password", "password_too_short"),
        ({"email": "a\0b@example.org"}, "email", "text_invalid"),
        ({"email": "a@example.org", "attributes": {"x": "y" * 17_000}}, "attributes", "attributes_too_large"),
    ],
)
async def test_an_invalid_field_is_named(api: Api, body: dict[str, object], field: str | None, code: str) -> None:
    answer = await api("POST", "/v1/users", body)
    assert (answer.status, answer.code) == (422, "invalid")
    assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_every_invalid_field_is_named(api: Api, method: str) -> None:
    path = "/v1/users" if method == "POST" else f"/v1/users/{(await api.user())['id']}"
    body = {"email": "nobody", "country": "XX", "name": {"given": 1}, "admin": True, "locale": "de"}
    answer = await api(method, path, body)
    assert (answer.status, answer.code) == (422, "invalid")
    told = answer.json["errors"]
    assert [(error["field"], error["code"]) for error in told] == [
        ("email", "email_invalid"),
        ("country", "country_invalid"),
        ("name.given", "wrong_type"),
        ("admin", "unknown_field"),
    ]
    assert answer.json["detail"] == "; ".join(error["detail"] for error in told)


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
async def test_a_body_that_is_no_object_is_refused(api: Api, body: object) -> None:
    raw = {None: b"null"}.get(body) if body is None else None
    answer = await api("POST", "/v1/users", None if raw else body, raw=raw)
    assert (answer.status, answer.code) == (422, "invalid")


async def test_an_unknown_user_is_404_and_so_is_what_cannot_be_an_id(api: Api) -> None:
    for identifier in (str(uuid4()), "01a205a0-8017-809f-b8ee-da6b47689a3c", "x", "{}", "%F0%9F%A6%86"):
        answer = await api("GET", f"/v1/users/{identifier}")
        assert (answer.status, answer.code) == (404, "user_not_found")


async def test_a_merge_patch_changes_clears_and_keeps(api: Api) -> None:
    user = await api.user(display_name="Ada", country="GB", attributes={"a": 1, "b": {"c": 1, "d": 2}})
    patch = {"display_name": None, "locale": "en-gb", "attributes": {"a": None, "b": {"c": 3}}}
    answer = await api(
        "PATCH", f"/v1/users/{user['id']}", patch, Content_Type="application/merge-patch+json; charset=utf-8"
    )
    changed = answer.json
    assert answer.status == 200
    assert (changed["display_name"], changed["locale"], changed["country"]) == (None, "en-GB", "GB")
    assert changed["attributes"] == {"b": {"c": 3, "d": 2}}
    assert changed["email"] == user["email"]
    assert answer.headers["etag"] == f'"{changed["version"]}"'


async def test_a_change_that_changes_nothing_makes_no_version(api: Api) -> None:
    user = await api.user(display_name="Ada")
    answer = await api("PATCH", f"/v1/users/{user['id']}", {"display_name": "Ada"})
    assert (answer.status, answer.json["version"]) == (200, 1)


async def test_a_changed_email_frees_the_old_one(api: Api) -> None:
    user, fresh = await api.user(), some_email()
    assert (await api("PATCH", f"/v1/users/{user['id']}", {"email": fresh})).status == 200
    assert (await api("GET", f"/v1/login-names/email/{fresh}")).json["id"] == user["id"]
    assert (await api("GET", f"/v1/login-names/email/{user['email']}")).status == 404
    assert (await api("POST", "/v1/users", {"email": user["email"]})).status == 201


async def test_suspend_reactivate_and_delete_with_who_and_why(api: Api) -> None:
    user = await api.user()
    path = f"/v1/users/{user['id']}"
    suspended = await api("POST", f"{path}:suspend", {"reason": "abuse"})
    assert (suspended.status, suspended.json["status"]) == (200, "suspended")
    again = await api("POST", f"{path}:suspend")
    assert (again.status, again.code) == (409, "wrong_status")
    active = await api("POST", f"{path}:reactivate")
    assert (active.status, active.json["status"]) == (200, "active")
    deleted = await api("DELETE", path, {"reason": "asked for it"})
    assert (deleted.status, deleted.json["status"], deleted.json["email"]) == (200, "deleted", None)
    history = (await api("GET", f"{path}/events")).json["items"]
    assert [event["type"] for event in history] == [
        "UserRegistered",
        "UserSuspended",
        "UserReactivated",
        "UserDeleted",
    ]
    assert history[1]["data"] == {"reason": "abuse"}
    assert all(event["actor"].startswith("key:") and UUID(event["correlation_id"]) for event in history)


async def test_a_deleted_user_is_gone_but_its_past_is_not(api: Api) -> None:
    user = await api.user()
    path = f"/v1/users/{user['id']}"
    assert (await api("DELETE", path)).status == 200
    for method, body in (("GET", None), ("PATCH", {"locale": "de"}), ("DELETE", None)):
        answer = await api(method, path, body)
        assert (answer.status, answer.code) == (410, "user_deleted")
    assert (await api("GET", f"{path}?version=1")).json["email"] == user["email"]
    assert (await api("POST", "/v1/users", {"email": user["email"]})).status == 201


async def test_a_user_as_of_a_version_or_a_time(api: Api) -> None:
    user = await api.user(display_name="one")
    path = f"/v1/users/{user['id']}"
    changed = (await api("PATCH", path, {"display_name": "two"})).json
    between = datetime.fromisoformat(changed["updated_at"]) - timedelta(microseconds=1)
    for query in ("version=1", "as_of=1", f"as_of={between:%Y-%m-%dT%H:%M:%S.%fZ}", f"as_of={between.isoformat()}"):
        answer = await api("GET", f"{path}?{query}")
        assert (answer.json["display_name"], answer.headers["etag"]) == ("one", '"1"'), query
    now = datetime.now(UTC).isoformat().replace("+", "%2B")
    assert (await api("GET", f"{path}?as_of={now}")).json["display_name"] == "two"
    assert (await api("GET", f"{path}?version=9")).code == "user_not_found"
    assert (await api("GET", f"{path}?as_of=2001-01-01T00:00:00Z")).code == "user_not_found"


@pytest.mark.parametrize(
    "query",
    ["version=0", "version=x", "version=1.5", "version=99999999999999999999", "version=1&as_of=1", "as_of=yesterday",
     "as_of=2026-01-01T00:00:00", "as_of=", "version=1&version=2", "Version=1", "version", "=1", "%ff=1", "a=%zz"],
)  # fmt: skip
async def test_a_bad_query_is_refused(api: Api, query: str) -> None:
    user = await api.user()
    answer = await api("GET", f"/v1/users/{user['id']}?{query}")
    assert (answer.status, answer.code) == (400, "invalid_parameter")
    assert answer.json["errors"][0]["detail"]


@pytest.mark.parametrize(
    "query",
    ["as_of=0001-01-01T00:00:00%2B14:00", "as_of=0001-01-01T00:00:00Z", "as_of=9999-12-31T23:59:59.999999-14:00",
     "as_of=9999-12-31T23:59:59Z", "version=2147483647", "as_of=2147483647", "as_of=999999999999"],
)  # fmt: skip
async def test_the_ends_of_time_are_no_server_error(api: Api, query: str) -> None:
    user = await api.user()
    assert (await api("GET", f"/v1/users/{user['id']}?{query}")).status in (200, 400, 404)


async def test_the_largest_pages_are_answered(api: Api) -> None:
    user = await api.user()
    assert (await api("GET", "/v1/users?limit=1000")).status == 200
    assert (await api("GET", f"/v1/users/{user['id']}/events?limit=1000&after_version=2147483647")).json["items"] == []


async def test_the_history_comes_in_pages(api: Api) -> None:
    user = await api.user()
    path = f"/v1/users/{user['id']}"
    for number in range(4):
        await api("PATCH", path, {"display_name": f"name {number}"})
    seen, after = [], 0
    while after is not None:
        page = (await api("GET", f"{path}/events?limit=2&after_version={after}")).json
        seen += [event["version"] for event in page["items"]]
        after = page["next_after_version"]
    assert seen == [1, 2, 3, 4, 5]
    assert (await api("GET", f"/v1/users/{uuid4()}/events")).code == "user_not_found"


async def test_the_list_has_every_user_once_in_a_stable_order(postgres_server: ThrowawayServer) -> None:
    databases = [postgres_server.create_database() for _ in range(2)]
    with running_server(databases) as server:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            api = Api(session, server, server.admin_key)
            made = {(await api.user())["id"] for _ in range(25)}
            gone = (await api.user())["id"]
            await api("DELETE", f"/v1/users/{gone}")
            first, cursor, pages = [], "", 0
            while cursor is not None:
                page = (await api("GET", f"/v1/users?limit=7{cursor and '&cursor=' + cursor}")).json
                first += [user["id"] for user in page["items"]]
                cursor, pages = page["next_cursor"], pages + 1
            whole = [user["id"] for user in (await api("GET", "/v1/users")).json["items"]]
    assert set(first) == made
    assert len(first) == 25
    assert pages == 4
    assert whole == first
    for database in databases:
        postgres_server.drop_database(database)


@pytest.mark.parametrize(
    "query", ["cursor=", "cursor=xyz", "cursor=AAAA", "limit=0", "limit=1001", "limit=-1", "page=2"]
)
async def test_a_bad_cursor_or_limit_is_refused(api: Api, query: str) -> None:
    assert (await api("GET", f"/v1/users?{query}")).code == "invalid_parameter"


async def test_of_many_racers_with_the_same_precondition_one_wins(api: Api) -> None:
    user = await api.user()
    path = f"/v1/users/{user['id']}"
    answers = await asyncio.gather(
        *(api("PATCH", path, {"display_name": f"racer {number}"}, If_Match='"1"') for number in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] + [412] * 19
    assert {answer.code for answer in answers if answer.status == 412} == {"version_conflict"}
