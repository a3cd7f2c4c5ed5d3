"""Who may do what: keys, scopes, rates, revocation; for every route of the table."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from http_api import Api

from denizen.http.route import Route
from denizen.http.routes import ROUTES

CLOSED = [route for route in ROUTES if route.scope is not None]
OPEN = [route for route in ROUTES if route.scope is None]
SCOPES = ["users:read", "users:write", "metrics:read", "admin"]

MakeKey = Callable[..., Awaitable[Api]]


def path_of(route: Route) -> str:
    path = route.path.replace("{id}", "01a205a0-8017-809f-b8ee-da6b47689a3c").replace("{key_id}", "none")
    return path.replace("{kind}", "email").replace("{value}", "nobody@example.org").replace("{code}", "internal")


@pytest.mark.parametrize("route", CLOSED, ids=lambda route: route.name)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic YTpi", "Bearer dk_x_y", "Bearer dk__", "Bearer \u00fc"],
)
async def test_without_a_known_key_it_is_401(api: Api, route: Route, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await api.with_key(None)(route.method, path_of(route), **headers)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_each_scope_opens_its_routes_and_no_others(make_key: MakeKey) -> None:
    for scope in SCOPES:
        api = await make_key(scope)
        for route in CLOSED:
            answer = await api(route.method, path_of(route))
            allowed = scope in (route.scope, "admin")
            assert (answer.status == 403) is not allowed, (scope, route.name, answer.raw)
            if not allowed:
                assert answer.code == "forbidden"
                assert answer.json["scope"] == route.scope


async def test_a_key_may_have_several_scopes(make_key: MakeKey) -> None:
    api = await make_key("users:read", "users:write")
    assert (await api.user())["version"] == 1
    assert (await api("GET", "/v1/users?limit=1")).status == 200
    assert (await api("GET", "/v1/keys")).code == "forbidden"


@pytest.mark.parametrize("route", OPEN, ids=lambda route: route.name)
async def test_open_routes_need_no_key_and_ignore_one(api: Api, route: Route) -> None:
    for key in (None, "nonsense"):
        assert (await api.with_key(key)(route.method, path_of(route))).status == 200


async def test_a_wrong_secret_of_a_real_key_is_401(api: Api) -> None:
    assert api.key is not None
    for wrong in (api.key[:-1], api.key + "x", api.key[:-1] + ("a" if api.key[-1] != "a" else "b"), api.key.upper()):
        assert (await api.with_key(wrong)("GET", "/v1/keys")).status == 401


async def test_keys_are_listed_without_secrets_and_refused_once_revoked(api: Api, make_key: MakeKey) -> None:
    created = (await api("POST", "/v1/keys", {"name": "to go", "scopes": ["users:read"], "rate_per_s": 7})).json
    key, secret = created["key"], created["secret"]
    other = api.with_key(secret)
    assert (await other("GET", "/v1/users?limit=1")).status == 200
    listed = await api("GET", "/v1/keys")
    assert key in listed.json["items"]
    assert secret.encode() not in listed.raw
    assert (await api("DELETE", f"/v1/keys/{key['id']}")).status == 204
    assert (await other("GET", "/v1/users?limit=1")).status == 401
    revoked = next(item for item in (await api("GET", "/v1/keys")).json["items"] if item["id"] == key["id"])
    assert revoked["revoked_at"] is not None
    assert (await api("DELETE", f"/v1/keys/{key['id']}")).status == 204
    assert (await api("DELETE", "/v1/keys/none")).code == "key_not_found"


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "x"}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
     {"name": "", "scopes": ["admin"]}, {"name": "x\n", "scopes": ["admin"]},
     {"name": "x", "scopes": ["admin"], "rate_per_s": 0}, {"name": "x", "scopes": ["admin"], "rate_per_s": 1.5},
     {"name": "x", "scopes": ["admin"], "more": 1},
     {"name": "x" * 101, "scopes": ["admin"]}, {"name": "\u202ex", "scopes": ["admin"]}],
)  # fmt: skip
async def test_a_bad_key_is_refused_by_field(api: Api, body: object) -> None:
    answer = await api("POST", "/v1/keys", body)
    assert (answer.status, answer.code) == (422, "invalid")
    assert answer.json["errors"][0]["field"]


async def test_a_key_with_a_rate_is_told_what_is_left_and_stopped(make_key: MakeKey) -> None:
    api = await make_key("users:read", rate_per_s=5)
    started = time.monotonic()
    answers = [await api("GET", "/v1/users?limit=1") for _ in range(8)]
    assert time.monotonic() - started < 1.0, "too slow to tell"
    assert [answer.status for answer in answers[:5]] == [200] * 5
    assert answers[-1].status == 429
    assert answers[0].headers["ratelimit-policy"] == '"key";q=5;w=1'
    assert answers[0].headers["ratelimit"] == '"key";r=4;t=1'
    assert answers[-1].code == "rate_limited"
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].headers["ratelimit"].startswith('"key";r=0;')
    assert answers[-1].json["retryable"] is True
    await asyncio.sleep(1.0)  # what Retry-After said
    assert (await api("GET", "/v1/users?limit=1")).status == 200


async def test_a_key_without_a_rate_is_not_limited(api: Api) -> None:
    answer = await api("GET", "/v1/users?limit=1")
    assert "ratelimit" not in answer.headers


async def test_a_batch_costs_one_request_per_item(make_key: MakeKey) -> None:
    api = await make_key("users:read", rate_per_s=10)
    ids = ["01a205a0-8017-809f-b8ee-da6b47689a3c"] * 60
    first = await api("POST", "/v1/users:batch-get", {"ids": ids})
    second = await api("POST", "/v1/users:batch-get", {"ids": ids})
    assert first.status == 200
    assert second.status == 429
    assert int(second.headers["retry-after"]) >= 4
