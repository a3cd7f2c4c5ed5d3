"""Documents become commands in the form that is kept; every problem is named by its field."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given

from denizen.users.commands import NamePatch, Registration, UserPatch
from denizen.users.rejections import CODES, Rejected
from denizen.users.state import Name
from denizen.users.validate import patch_from, registration_from, request_from

from .strategies import registrations

FULL: dict[str, Any] = {
    "email": "  Zoe\u0308@Bücher.example ",
    "username": "Zoe",
    "phone": "030 901820",
    "name": {"given": " Zoe\u0308 ", "family": "Ng"},
    "display_name": "Zoë Ng",
    "locale": "de-ch",
    "country": "de",
    "time_zone": "Europe/Zurich",
    "picture_url": "https://example.com/a%20b.png?x=1",
    "attributes": {"plan": "free", "bio": "two\nlines", "gone": None, "deep": {"gone": None, "list": [None, 1.5]}},
    "password_hash": "$2b$12$" + "a" * 21 + "u" + "a" * 30 + "u",
}
KEPT = Registration(
    email="Zoë@Bücher.example",
    username="Zoe",
    phone="+4930901820",
    name=Name("Zoë", "Ng"),
    display_name="Zoë Ng",
    locale="de-CH",
    country="DE",
    time_zone="Europe/Zurich",
    picture_url="https://example.com/a%20b.png?x=1",
    attributes={"plan": "free", "bio": "two\nlines", "deep": {"list": [None, 1.5]}},
    password_hash=FULL["password_hash"],
)


def rejected(parse: Callable[[Any], object], raw: object) -> Rejected:
    """The rejection of this input, after a look at what all rejections have in common."""
    with pytest.raises(Rejected) as caught:
        parse(raw)
    problem = caught.value
    assert problem.code in CODES
    assert (
        problem.field is None
        or problem.code == "unknown_field"
        or problem.field.split(".")[0].split("[")[0]
        in (
            *FULL,
            "password",
        )
    )
    problem.detail.encode()
    return problem


def test_a_full_document_comes_out_trimmed_and_normalised() -> None:
    assert registration_from(FULL) == KEPT
    assert registration_from(json.dumps(FULL).encode()) == KEPT


def test_an_import_takes_a_hash_and_a_request_takes_a_password_and_neither_takes_both() -> None:
    request = request_from(b'{"email":"a@example.com","password":"correct horse"}')
    assert request.password == "correct horse"
    assert request.registration == Registration(email="a@example.com")
    assert "horse" not in repr(request.registration)
    assert rejected(request_from, {"password_hash": FULL["password_hash"]}).field == "password_hash"
    assert rejected(registration_from, {"password": "correct horse"}).field == "password"


@pytest.mark.parametrize(
    ("raw", "code", "field", "detail"),
    [
        (b'{"email":1}', "wrong_type", "email", "`email` must be a string, not a number"),
        (b'{"email":1.5}', "wrong_type", "email", "`email` must be a string, not a number"),
        (b'{"name":{"given":1}}', "wrong_type", "name.given", "`name.given` must be a string, not a number"),
        (b'{"name":{"given":[]}}', "wrong_type", "name.given", "`name.given` must be a string, not an array"),
        (b'{"name":"Anna"}', "wrong_type", "name", "`name` must be an object, not a string"),
        (b'{"country":true}', "wrong_type", "country", "`country` must be a string, not true or false"),
        (b'{"attributes":[]}', "wrong_type", "attributes", "`attributes` must be an object, not an array"),
        (b'{"nick":"a"}', "unknown_field", "nick", "`nick` is not a field known here"),
        (b'{"id":"a"}', "unknown_field", "id", "`id` is not a field known here"),
        (b'{"name":{"middle":"a"}}', "unknown_field", "name.middle", "`name.middle` is not a field known here"),
        (b"[]", "malformed", None, "the input must be an object, not an array"),
        (b"null", "malformed", None, "the input must be an object, not null"),
        ({1: 2}, "wrong_type", None, "the names in the input must be strings"),
        ({"attributes": {1: 2}}, "wrong_type", "attributes", "the names in `attributes` must be strings"),
        ({"name": {"given": b"a"}}, "wrong_type", "name.given", "`name.given` must be a string, not `bytes`"),
    ],
)
@pytest.mark.parametrize("parse", [registration_from, request_from, patch_from])
def test_a_wrong_type_or_field_is_named(
    parse: Callable[[Any], object], raw: object, code: str, field: str | None, detail: str
) -> None:
    problem = rejected(parse, raw)
    assert (problem.code, problem.field, problem.detail) == (code, field, detail)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"not json", b'{"email":"a@example.com"} x', b"\xef\xbb\xbf{}", b'{"attributes":{"a":NaN}}']
)
def test_what_is_no_json_is_malformed(raw: bytes) -> None:
    assert rejected(registration_from, raw).code == "malformed"


def test_a_bomb_of_brackets_is_refused() -> None:
    assert (
        rejected(registration_from, b'{"attributes":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}}").code
        == "malformed"
    )


def test_a_huge_or_unprintable_field_name_is_not_echoed() -> None:
    assert len(rejected(registration_from, {"x" * 100_000: 1}).detail) < 200
    assert rejected(registration_from, {"\x1b[2J": 1}).detail.isprintable()


@pytest.mark.parametrize(
    "path", ["email", "username", "phone", "name.given", "name.family", "display_name", "attributes.bio"]
)
@pytest.mark.parametrize("character", ["\0", "\x07", "\x7f", "\x85", "\ud800"])
@pytest.mark.parametrize("parse", [registration_from, patch_from])
def test_control_characters_and_lone_surrogates_are_refused_with_the_name_of_the_field(
    path: str, character: str, parse: Callable[[Any], object]
) -> None:
    outer, _, inner = path.partition(".")
    text = f"a{character}a"
    document = {outer: {inner: text} if inner else text}
    for raw in (document, json.dumps(document).encode()):
        problem = rejected(parse, raw)
        assert (problem.code, problem.field) == ("text_invalid", path)


@pytest.mark.parametrize("character", ["\n", "\t", "\u2028", "\u202e", "\u2066"])
def test_lines_and_directional_overrides_have_no_place_in_a_name_but_joiners_have(character: str) -> None:
    assert rejected(registration_from, {"display_name": f"a{character}b"}).field == "display_name"
    assert registration_from({"display_name": "می\u200cخواهم"}).display_name == "می\u200cخواهم"


def test_bytes_that_are_not_utf_8_are_refused_with_the_name_of_the_field() -> None:
    problem = rejected(registration_from, b'{"name":{"given":"Zo\xeb"}}')
    assert (problem.code, problem.field) == ("text_invalid", "name.given")
    assert rejected(registration_from, b'{"na\xffme":1}').field is None


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("email", "a" * 300 + "@example.com", "too_long"),
        ("email", "nobody", "email_invalid"),
        ("email", "", "email_invalid"),
        ("username", "x" * 65, "too_long"),
        ("username", "", "username_invalid"),
        ("phone", "030 901820", "phone_invalid"),
        ("display_name", "x" * 201, "too_long"),
        ("locale", "english!", "locale_invalid"),
        ("locale", "en_US", "locale_invalid"),
        ("locale", "x" * 36, "locale_invalid"),
        ("country", "XX", "country_invalid"),
        ("country", "DEU", "country_invalid"),
        ("time_zone", "Mars/Olympus", "time_zone_invalid"),
        ("time_zone", "europe/zurich", "time_zone_invalid"),
        ("time_zone", "../../etc/passwd", "time_zone_invalid"),
        ("picture_url", "ftp://example.com/a", "picture_url_invalid"),
        ("picture_url", "javascript:alert(1)", "picture_url_invalid"),
        ("picture_url", "//example.com/a", "picture_url_invalid"),
        ("picture_url", "https://", "picture_url_invalid"),
        ("picture_url", "https://me:secret@example.com/", "picture_url_invalid"),
        ("picture_url", "https://example.com/a b", "picture_url_invalid"),
        ("picture_url", "https://example.com:99999/", "picture_url_invalid"),
        ("picture_url", "https://[::1", "picture_url_invalid"),
        ("picture_url", "https://example.com/" + "a" * 2048, "too_long"),
        ("password_hash", "hunter2", "password_hash_invalid"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: str, code: str) -> None:
    problem = rejected(registration_from, {field: value})
    assert (problem.code, problem.field) == (code, field)


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("EN", "en"),
        ("zh-hans-cn", "zh-Hans-CN"),
        ("sl-rozaj-biske", "sl-rozaj-biske"),
        ("de-ch-1996", "de-CH-1996"),
        ("es-419", "es-419"),
        ("en-US-u-ca-buddhist", "en-US-u-ca-buddhist"),
        ("de-x-mine", "de-x-mine"),
    ],
)
def test_locales_are_kept_in_the_recommended_spelling(raw: str, kept: str) -> None:
    assert registration_from({"locale": raw}).locale == kept


@pytest.mark.parametrize(
    "field", ["name", "display_name", "locale", "country", "time_zone", "picture_url", "attributes"]
)
def test_an_empty_profile_field_is_as_not_given(field: str) -> None:
    empty: Any = {"given": " ", "family": ""} if field == "name" else {} if field == "attributes" else " "
    assert registration_from({field: empty}) == registration_from({field: None}) == Registration()


@pytest.mark.parametrize("password", ["short", "x" * 1025, "with\0nul!", "with\ud800surrogate"])
def test_an_impossible_password_is_refused(password: str) -> None:
    assert rejected(request_from, {"password": password}).field == "password"


def test_a_patch_tells_absent_from_null() -> None:
    patch = patch_from(b'{"display_name":null,"name":{"given":" Zo\xc3\xab "},"country":"ch","attributes":{"a":null}}')
    assert patch == UserPatch(display_name=None, name=NamePatch(given="Zoë"), country="CH", attributes={"a": None})
    assert patch_from(b"{}") == UserPatch()


def test_a_patch_leaves_a_national_phone_number_to_the_decider() -> None:
    assert patch_from({"phone": " 030 901820 "}).phone == "030 901820"


@given(registrations)
def test_what_was_accepted_is_accepted_again_unchanged(registration: Registration) -> None:
    assert registration_from(msgspec.json.encode(registration)) == registration
