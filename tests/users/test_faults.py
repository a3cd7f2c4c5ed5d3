"""All faults of a document are told, in its order, by the checks that stop at the first."""

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.users.commands import Registration
from denizen.users.faults import checked, with_all_faults
from denizen.users.limits import faults_max
from denizen.users.rejections import Rejected
from denizen.users.validate import patch_from, registration_from, request_from

from .strategies import registrations

BAD: dict[str, Any] = {
    "email": "nobody",
    "country": "XX",
    "nick": "Z",
    "username": "u" * 65,
    "name": {"given": 7, "family": "x" * 201, "middle": "M"},
    "display_name": ["no", "text"],
    "locale": "de-CH",
    "time_zone": "Moon/Crater",
    "attributes": {"ok": 1, "bell": "\a", "escape": "\x1b"},
}
FAULTS = [
    ("email", "email_invalid"),
    ("country", "country_invalid"),
    ("nick", "unknown_field"),
    ("username", "too_long"),
    ("name.given", "wrong_type"),
    ("name.family", "too_long"),
    ("name.middle", "unknown_field"),
    ("display_name", "wrong_type"),
    ("time_zone", "time_zone_invalid"),
    ("attributes.bell", "text_invalid"),
]


def faults(parse: Callable[[Any], object], document: dict[str, Any]) -> list[tuple[str | None, str]]:
    with pytest.raises(Rejected) as caught:
        checked(parse, document)
    return [(fault.field, fault.code) for fault in caught.value.faults]


@pytest.mark.parametrize("parse", [registration_from, request_from, patch_from])
def test_every_field_at_fault_is_told_in_the_documents_order(parse: Callable[[Any], object]) -> None:
    assert faults(parse, BAD) == FAULTS


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"phone": "030 901820", "country": "XX"}, ["country"]),
        ({"phone": "12", "country": "DE", "locale": "?"}, ["phone", "locale"]),
        ({"phone": "030 901820", "locale": "?"}, ["phone", "locale"]),
        ({"country": "DE", "phone": "030 901820", "locale": "?"}, ["locale"]),
    ],
)
def test_a_phone_number_is_judged_by_its_country_or_not_at_all(document: dict[str, Any], told: list[str]) -> None:
    assert [field for field, _ in faults(registration_from, document)] == told


def test_no_more_are_told_than_anybody_reads() -> None:
    assert len(faults(request_from, {f"x{number}": 1 for number in range(10_000)})) == faults_max


def test_what_is_no_object_has_one_fault() -> None:
    first = Rejected("malformed", None, "no object")
    for raw in (b"[]", b"{", b'{"a":"\xff"}', b'{"a":' * 100_000):
        assert with_all_faults(first, registration_from, raw) is first


def test_a_fault_that_no_field_has_by_itself_stays() -> None:
    raw = b'{"email": 5, "email": "zoe@example.com", "country": "XX"}'
    with pytest.raises(Rejected) as caught:
        registration_from(raw)
    all_of_it = with_all_faults(caught.value, registration_from, raw)
    assert [fault.field for fault in all_of_it.faults] == ["email", "country"]


def test_all_survive_the_way_from_another_process_and_are_said_in_one_line() -> None:
    with pytest.raises(Rejected) as caught:
        checked(request_from, {"country": "XX", "locale": "?"})
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert [fault.field for fault in again.faults] == ["country", "locale"]
    assert str(again) == str(caught.value) == "; ".join(fault.detail for fault in again.faults)


@given(registrations, st.sets(st.sampled_from(["email", "username", "locale", "time_zone", "picture_url"]), min_size=1))
def test_good_fields_are_never_told(registration: Registration, bad: set[str]) -> None:
    document = {**msgspec.to_builtins(registration), **dict.fromkeys(bad, " \n?")}
    assert {field for field, _ in faults(registration_from, document)} == bad
