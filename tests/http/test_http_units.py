"""The pure parts: entity tags, cursors, the limiter, idempotency fingerprints, strict JSON, queries, the router."""

from contextlib import suppress
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.errors import IdempotencyKeyReused, RateLimited, VersionConflict
from denizen.http.cursors import cursor_after, parse_cursor
from denizen.http.etags import etag, expected_version, is_known
from denizen.http.idempotency import RecentKeys, check_key, fingerprint
from denizen.http.json_bodies import decode_json
from denizen.http.limiter import Limiter, TokenBucket, rate_headers
from denizen.http.refusals import InvalidHeader, InvalidParameter, MalformedJson, MethodNotAllowed, RouteNotFound
from denizen.http.requests import parse_query
from denizen.http.router import Router
from denizen.http.routes import ROUTES
from denizen.sharding.ids import bucket_of, mint_user_id


class TestEntityTags:
    @pytest.mark.parametrize("version", [1, 7, 2**31])
    def test_a_version_survives_the_round_trip(self, version: int) -> None:
        assert expected_version(etag(version)) == version

    @pytest.mark.parametrize("header", [None, "*", " * "])
    def test_no_header_or_a_star_accepts_any_version(self, header: str | None) -> None:
        assert expected_version(header) is None

    @pytest.mark.parametrize("header", ['W/"1"', '"1", "2"', "1", '"1', "", " ", ",", '"1" "2"', '"1"x'])
    def test_what_is_no_single_strong_tag_is_refused(self, header: str) -> None:
        with pytest.raises(InvalidHeader):
            expected_version(header)

    @pytest.mark.parametrize("header", ['"abc"', '"0"', '"-1"', '""', '"01"'])
    def test_a_tag_that_is_no_version_matches_nothing(self, header: str) -> None:
        with pytest.raises(VersionConflict):
            expected_version(header)

    @pytest.mark.parametrize("header", ['"7"', 'W/"7"', '"1", W/"7"', "*"])
    def test_a_known_version_is_found_weakly(self, header: str) -> None:
        assert is_known(header, 7)

    @pytest.mark.parametrize("header", [None, '"8"', '"1", "2"', '"x"'])
    def test_another_version_is_not_known(self, header: str | None) -> None:
        assert not is_known(header, 7)


class TestCursors:
    def test_a_cursor_leads_back_to_its_user(self) -> None:
        user_id = mint_user_id(4095, 1_800_000_000_000)
        assert parse_cursor(cursor_after(user_id)) == (bucket_of(user_id), user_id)

    @given(st.text(max_size=40))
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidParameter):
            parse_cursor(text)

    def test_a_mangled_cursor_is_refused(self) -> None:
        cursor = cursor_after(mint_user_id(1, 1))
        mangled = ("B" if cursor[5] != "B" else "C").join((cursor[:5], cursor[6:]))
        with pytest.raises(InvalidParameter):
            parse_cursor(mangled)


class TestTokenBuckets:
    def test_a_burst_is_one_second_and_tokens_come_back_at_the_rate(self) -> None:
        bucket = TokenBucket(10, now=0.0)
        assert [bucket.take(0.0) for _ in range(10)] == [0.0] * 10
        assert bucket.take(0.0) == pytest.approx(0.1)
        assert bucket.take(0.1) == 0.0
        assert bucket.take(0.1) > 0.0

    def test_a_rested_bucket_holds_no_more_than_its_burst(self) -> None:
        bucket = TokenBucket(5, now=0.0)
        assert sum(bucket.take(1e6) == 0.0 for _ in range(20)) == 5

    def test_a_batch_runs_into_debt_that_later_requests_wait_for(self) -> None:
        bucket = TokenBucket(10, now=0.0)
        assert bucket.take(0.0) == 0.0
        bucket.charge(99)
        assert bucket.take(1.0) == pytest.approx(8.1)
        assert bucket.remaining() == 0

    @given(st.integers(1, 1000), st.lists(st.floats(0, 3), max_size=60))
    def test_never_more_than_burst_plus_rate_times_time(self, rate: int, pauses: list[float]) -> None:
        bucket, now, taken = TokenBucket(rate, now=0.0), 0.0, 0
        for pause in pauses:
            now += pause
            taken += bucket.take(now) == 0.0
        assert taken <= bucket.burst + rate * now + 1e-6

    def test_the_limiter_says_how_long_to_wait(self) -> None:
        clock = iter([0.0, 0.0, 0.0]).__next__
        limiter = Limiter(clock)
        bucket = limiter.bucket("k", 1)
        limiter.admit(bucket)
        with pytest.raises(RateLimited) as refused:
            limiter.admit(bucket)
        assert refused.value.facts["retry_after_s"] == 1

    def test_a_changed_rate_makes_a_new_bucket_and_the_oldest_is_forgotten(self) -> None:
        limiter = Limiter(lambda: 0.0, buckets_max=2)
        first = limiter.bucket("a", 1)
        assert limiter.bucket("a", 1) is first
        assert limiter.bucket("a", 2) is not first
        second = limiter.bucket("b", 1)
        limiter.bucket("c", 1)
        assert limiter.bucket("b", 1) is second
        assert len(limiter._buckets) == 2

    def test_the_header_fields_are_those_of_the_draft(self) -> None:
        bucket = TokenBucket(50, now=0.0)
        bucket.take(0.0)
        assert rate_headers(bucket) == [("ratelimit-policy", '"key";q=50;w=1'), ("ratelimit", '"key";r=49;t=1')]


class TestIdempotency:
    def test_a_fingerprint_ignores_order_and_password_but_nothing_else(self) -> None:
        mark = fingerprint("POST", "/v1/users", {"email": "a", "password": "one"})
        assert mark == fingerprint("POST", "/v1/users", {"password": "two", "email": "a"})
        assert mark != fingerprint("POST", "/v1/users", {"email": "b", "password": "one"})
        assert mark != fingerprint("POST", "/v1/users", {"email": "a"})
        assert mark != fingerprint("PUT", "/v1/users", {"email": "a", "password": "one"})
        assert mark != fingerprint("POST", "/v1/userS", {"email": "a", "password": "one"})

    def test_a_recent_key_is_refused_for_another_request_until_it_is_released(self) -> None:
        recent = RecentKeys()
        assert recent.claim("k", "POST", "/", {"a": 1})
        assert not recent.claim("k", "POST", "/", {"a": 1})
        with pytest.raises(IdempotencyKeyReused):
            recent.claim("k", "POST", "/", {"a": 2})
        recent.release("k")
        assert recent.claim("k", "POST", "/", {"a": 2})

    def test_another_password_is_another_request_in_memory(self) -> None:
        recent = RecentKeys()
        recent.claim("k", "PUT", "/", {"password": "one"})
        with pytest.raises(IdempotencyKeyReused):
            recent.claim("k", "PUT", "/", {"password": "two"})

    def test_the_record_is_bounded(self) -> None:
        recent = RecentKeys(keys_max=3)
        for number in range(10):
            recent.claim(str(number), "POST", "/", None)
        assert len(recent._fingerprints) == 3
        assert recent.claim("0", "POST", "/", "else")

    @pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "a\t", "\x7f"])
    def test_a_key_is_1_to_255_visible_characters(self, key: str) -> None:
        with pytest.raises(InvalidHeader):
            check_key(key)
        assert check_key("x" * 255)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


class TestStrictJson:
    @given(JSON)
    def test_well_formed_json_passes_unchanged(self, value: object) -> None:
        assert decode_json(msgspec.json.encode(value)) == value

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"a":1,"a":1}',
            b'{"a":1,"b":{"c":2,"c":3}}',
            b'[{"x": ":", "x": ""}]',
            b'{"a":1,"\\u0061":2}',
            b'{"k":"::::","k":2}',
        ],
    )
    def test_a_repeated_member_is_found(self, raw: bytes) -> None:
        with pytest.raises(MalformedJson, match="twice"):
            decode_json(raw)

    @pytest.mark.parametrize(
        ("raw", "offset"),
        [
            (b"", 0),
            (b"{", 1),
            (b'{"a":}', 5),
            (b'{"a":1}x', 7),
            (b'{"a":"\xff"}', 6),
            (b"\xef\xbb\xbf{}", 0),
            (b"nul", 3),
        ],
    )
    def test_an_error_says_at_which_byte(self, raw: bytes, offset: int) -> None:
        with pytest.raises(MalformedJson) as refused:
            decode_json(raw)
        assert abs(refused.value.facts["byte_offset"] - offset) <= 1

    @pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 50_000, b"1e999", b'"\\ud800"', b"9" * 5_000])
    def test_what_would_hurt_is_refused_or_harmless(self, raw: bytes) -> None:
        with suppress(MalformedJson):
            decode_json(raw)


class TestQueries:
    def test_known_parameters_once_each(self) -> None:
        assert parse_query("a=1&b=%C3%BC", frozenset("ab")) == {"a": "1", "b": "ü"}

    @pytest.mark.parametrize("text", ["c=1", "a=1&a=2", "a", "a=%ff", "&".join(f"a{n}=1" for n in range(30))])
    def test_all_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidParameter):
            parse_query(text, frozenset("ab"))


class TestRouter:
    router = Router(ROUTES)

    @pytest.mark.parametrize(
        ("method", "path", "name", "params"),
        [
            ("GET", "/v1/users", "list_users", {}),
            ("GET", "/v1/users/x", "get_user", {"id": "x"}),
            ("HEAD", "/v1/users/x", "get_user", {"id": "x"}),
            ("POST", "/v1/users/x:suspend", "suspend_user", {"id": "x"}),
            ("POST", "/v1/users:batch", "create_users", {}),
            ("PUT", "/v1/users/x/password", "set_password", {"id": "x"}),
            ("POST", "/v1/users/x/password/verify", "verify_password", {"id": "x"}),
            ("GET", "/v1/login-names/email/a/b@c.de", "find_user", {"kind": "email", "value": "a/b@c.de"}),
            ("GET", "/v1/login-names/email/a/password/verify", "find_user",
             {"kind": "email", "value": "a/password/verify"}),
            ("POST", "/v1/login-names/email/a:b/password/verify", "verify_password_by_login_name",
             {"kind": "email", "value": "a:b"}),
        ],
    )  # fmt: skip
    def test_a_path_finds_its_route(self, method: str, path: str, name: str, params: dict[str, str]) -> None:
        route, found = self.router.find(method, path)
        assert (route.name, dict(found)) == (name, params)

    @pytest.mark.parametrize(
        "path", ["", "/", "/v1", "/v1/", "/v1/users/", "/v1/users/a/b", "/v1/users:x", "/V1/users"]
    )
    def test_other_paths_find_none(self, path: str) -> None:
        with pytest.raises(RouteNotFound):
            self.router.find("GET", path)

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("DELETE", "/v1/users", "GET, HEAD, OPTIONS, POST"),
            ("POST", "/v1/users/x", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("GET", "/v1/users/x:suspend", "OPTIONS, POST"),
            ("TRACE", "/health/live", "GET, HEAD, OPTIONS"),
        ],
    )
    def test_a_wrong_method_is_told_the_right_ones(self, method: str, path: str, allow: str) -> None:
        with pytest.raises(MethodNotAllowed) as refused:
            self.router.find(method, path)
        assert refused.value.allow == allow
        assert self.router.options(path) == allow

    def test_every_route_finds_itself(self) -> None:
        for route in ROUTES:
            path = route.path.replace("{id}", str(uuid4())).replace("{key_id}", "k").replace("{code}", "internal")
            path = path.replace("{kind}", "email").replace("{value}", "a@example.org")
            assert self.router.find(route.method, path)[0] is route
