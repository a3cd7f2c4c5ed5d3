"""Two spellings of one name give one value; what is no name is refused, with its field."""

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.users.login_names import (
    LoginName,
    LoginNameKind,
    login_name,
    normalise_email,
    normalise_phone,
    normalise_username,
)
from denizen.users.rejections import Rejected
from denizen.users.state import Status, User, login_names

from .strategies import ALL_KINDS, emails, names


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("Anna.Maria+News@Example.COM", "anna.maria+news@example.com"),
        ("  anna@example.com ", "anna@example.com"),
        ("ANNA@BÜCHER.example", "anna@xn--bcher-kva.example"),
        ("anna@xn--bcher-kva.example", "anna@xn--bcher-kva.example"),
        ("ａｎｎａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "anna@example.com"),
        ("anna@例え。テスト", "anna@xn--r8jz45g.xn--zckzah"),
        ("Straße@straße.de", "strasse@xn--strae-oqa.de"),
        ("ΣΊΣΥΦΟΣ@example.com", "σίσυφοσ@example.com"),
        ("zoe\u0308@example.com", "zoë@example.com"),
        ("o'neil_{x}!#$%&*/=?^`|~-@a-b.c3.example", "o'neil_{x}!#$%&*/=?^`|~-@a-b.c3.example"),
        ("a@r3---sn.example.com", "a@r3---sn.example.com"),
    ],
)
def test_spellings_of_one_email_give_one_value(given: str, value: str) -> None:
    assert normalise_email(given) == value


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "@",
        "anna",
        "anna@",
        "@example.com",
        "anna@localhost",
        "anna@example.com.",
        "anna@@example.com",
        "an na@example.com",
        "anna@exa mple.com",
        "anna@-example.com",
        "anna@exa_mple.com",
        "anna@1.2.3.4",
        "anna@[127.0.0.1]",
        ".anna@example.com",
        "anna.@example.com",
        "an..na@example.com",
        '"an na"@example.com',
        "anna@xn--zzzzzzzzzz99999.com",
        "an\u200bna@example.com",
        "an\u3000na@example.com",
        "ann\ufe0fa@example.com",
        "anna@ex\u0000ample.com",
        "änna@ex\u0000ample.com",
        "anna@example..com",
        f"{'a' * 65}@example.com",
        f"{'ä' * 33}@example.com",
        f"anna@{'a' * 64}.com",
        f"anna@{'a.' * 130}com",
    ],
)
def test_what_is_no_email_is_refused(raw: str) -> None:
    with pytest.raises(Rejected) as caught:
        normalise_email(raw)
    assert caught.value.field == "email"
    assert caught.value.code in {"email_invalid", "text_invalid"}


def test_an_email_may_have_254_bytes_and_no_more() -> None:
    longest = f"{'a' * 64}@{'b' * 61}.{'c' * 61}.{'d' * 61}.com"
    assert len(longest) == 254
    assert normalise_email(longest) == longest
    with pytest.raises(Rejected):
        normalise_email(longest.replace(".com", ".comm"))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("Anna_B.c-9", "anna_b.c-9"),
        (" anna ", "anna"),
        ("Ａnna", "anna"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("नेहा", "नेहा"),
        ("서아", "서아"),
        ("٣anna", "٣anna"),
        ("9lives", "9lives"),
        ("x" * 64, "x" * 64),
    ],
)
def test_spellings_of_one_username_give_one_value(given: str, value: str) -> None:
    assert normalise_username(given) == value


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        ".anna",
        "_anna",
        "-anna",
        "an na",
        "anna@x",
        "ann\u200ba",
        "ann\ufe0fa",
        "ㅤ",
        "x" * 65,
        "ä/",
        "😀",
    ],
)
def test_what_is_no_username_is_refused(raw: str) -> None:
    with pytest.raises(Rejected) as caught:
        normalise_username(raw)
    assert (caught.value.code, caught.value.field) == ("username_invalid", "username")


@pytest.mark.parametrize(
    ("raw", "country", "value"),
    [
        ("+49301234567", None, "+49301234567"),
        ("+820000000001", None, "+820000000001"),
        (" +49 (30) 123-45.67 ", None, "+49301234567"),
        ("+49 (0)30 901820", None, "+4930901820"),
        ("030 901820", "DE", "+4930901820"),
        ("0049 30 901820", "DE", "+4930901820"),
        ("(212) 555-2368", "US", "+12125552368"),
        ("＋４９ ３０ ９０１８２０", None, "+4930901820"),
    ],
)
def test_phones_become_e164(raw: str, country: str | None, value: str) -> None:
    assert normalise_phone(raw, country) == value


@pytest.mark.parametrize(
    ("raw", "country"),
    [
        ("", None),
        ("030 901820", None),
        ("12", "DE"),
        ("+0123456", None),
        ("+1234567890123456", None),
        ("call me", "US"),
        ("(212) 555-2368 ext. 5", "US"),
        ("+49\x0030901820", None),
        ("9" * 65, "DE"),
    ],
)
def test_what_is_no_phone_is_refused(raw: str, country: str | None) -> None:
    with pytest.raises(Rejected) as caught:
        normalise_phone(raw, country)
    assert caught.value.field == "phone"


@given(emails)
def test_normalising_an_email_again_changes_nothing(email: str) -> None:
    value = normalise_email(email)
    assert normalise_email(value) == value


@given(emails, st.sampled_from([str.upper, str.lower, str.swapcase, lambda text: f" {text}\u3000"]))
def test_the_case_and_the_form_of_an_email_make_no_other_login_name(email: str, respell: Callable[[str], str]) -> None:
    spellings = {email, respell(email), unicodedata.normalize("NFD", email), unicodedata.normalize("NFC", email)}
    assert len({login_name(LoginNameKind.EMAIL, spelling) for spelling in spellings}) == 1


@given(names)
def test_normalising_a_username_again_changes_nothing(username: str) -> None:
    value = normalise_username(username)
    assert normalise_username(value) == value


@given(st.text(min_size=1, max_size=12))
def test_whatever_is_accepted_is_stable(text: str) -> None:
    for normalise in (normalise_username, lambda local: normalise_email(f"{local}@example.com")):
        try:
            value = normalise(text)
        except Rejected:
            continue
        assert normalise_username(value) == value if "@" not in value else normalise_email(value) == value


def test_every_single_character_is_stable_or_refused() -> None:
    for point in range(0x80, sys.maxunicode + 1):
        try:
            value = normalise_username(f"a{chr(point)}")
        except Rejected:
            continue
        assert normalise_username(value) == value


def test_login_names_come_in_the_order_email_username_phone_and_of_the_asked_kinds_only() -> None:
    user = User(Status.ACTIVE, email="A@Example.com", username="Anna", phone="+49301234567")
    email, username, phone = (
        LoginName(LoginNameKind.EMAIL, "a@example.com"),
        LoginName(LoginNameKind.USERNAME, "anna"),
        LoginName(LoginNameKind.PHONE, "+49301234567"),
    )
    assert login_names(user, ALL_KINDS) == (email, username, phone)
    assert login_names(user, frozenset({LoginNameKind.PHONE, LoginNameKind.EMAIL})) == (email, phone)
    assert login_names(User(Status.DELETED), ALL_KINDS) == ()


def test_kinds_have_words() -> None:
    assert [LoginNameKind.from_word(kind.word) for kind in LoginNameKind] == list(LoginNameKind)
    with pytest.raises(Rejected, match="`email`, `username` or `phone`"):
        LoginNameKind.from_word("passport")


def test_stored_numbers_of_kinds_and_statuses_never_change() -> None:
    assert {kind.word: int(kind) for kind in LoginNameKind} == {"email": 1, "username": 2, "phone": 3}
    assert {status.word: int(status) for status in Status} == {"active": 1, "suspended": 2, "deleted": 3, "erased": 4}
