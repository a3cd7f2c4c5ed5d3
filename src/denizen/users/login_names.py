"""Login names, and the one form in which each is compared.

Two spellings of one name must give one value, or one person gets two accounts; and normalising a value again must
change nothing, for values are stored and compared for ever. ASCII, the common case, takes a short way with the same
result.

- Email: NFKC; the local part case-folded; the domain in ASCII (IDNA 2008 with the mapping of UTS 46). No quoted local
  parts, no address literals, at least two labels.
- Username: NFKC, case-folded; letters, marks and digits of any script, `.`, `_`, `-`; a letter or digit first.
- Phone: E.164. What is not in E.164 is read with the numbering plans of `phonenumbers`, for the user's country.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final
from unicodedata import category, normalize

import idna
from msgspec import Struct

from .limits import email_chars_max, email_local_bytes_max, phone_chars_max, username_chars_max
from .rejections import Rejected
from .text import check_characters


class LoginNameKind(IntEnum):
    """The kinds of login names. The numbers are stored and hashed."""

    EMAIL = 1
    USERNAME = 2
    PHONE = 3

    @property
    def word(self) -> str:
        """The kind as the API and the configuration say it: "email", "username" or "phone"."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> "LoginNameKind":
        """The kind that this word means; `Rejected` if there is none."""
        if word not in _KINDS_BY_WORD:
            raise Rejected("wrong_value", "kind", "the kind of a login name is `email`, `username` or `phone`")
        return _KINDS_BY_WORD[word]


_KINDS_BY_WORD: Final = {kind.word: kind for kind in LoginNameKind}


class LoginName(Struct, frozen=True, order=True, gc=False):
    """A unique key of a user. `value` is normalised: make it with `login_name` or a `normalise_` function."""

    kind: LoginNameKind
    value: str


_ATOM: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"  # RFC 5322 atext; RFC 6531 adds all beyond ASCII
_LOCAL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}")
_ASCII_USERNAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{username_chars_max - 1}}}")
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_PHONE_PUNCTUATION: Final = re.compile(r"[ \-.()\u00a0\u2010\u2011]")

# Letters and marks that are shown as nothing (Unicode: Default_Ignorable_Code_Point): two names would look the same.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def login_name(kind: LoginNameKind, raw: str, country: str | None = None) -> LoginName:
    """The login name of this kind that `raw` spells; `country` helps to read a national phone number."""
    if kind is LoginNameKind.EMAIL:
        return LoginName(kind, normalise_email(raw))
    if kind is LoginNameKind.USERNAME:
        return LoginName(kind, normalise_username(raw))
    return LoginName(kind, normalise_phone(raw, country))


def normalise_email(raw: str) -> str:
    """The email as a login name; `Rejected` (email_invalid) if it is none."""
    local, _, domain = raw.strip().lower().rpartition("@") if raw.isascii() else _split_international(raw)
    if not _LOCAL.fullmatch(local):
        raise _not_an_email("the part before the `@` is empty or has a character that is not allowed there")
    domain = _domain(domain)
    if len(local) > email_local_bytes_max // 4 and len(local.encode()) > email_local_bytes_max:
        raise _not_an_email(f"the part before the `@` must have at most {email_local_bytes_max} bytes")
    value = f"{local}@{domain}"
    if len(value) > email_chars_max // 4 and len(value.encode()) > email_chars_max:
        raise _not_an_email(f"it must have at most {email_chars_max} bytes")
    return value


def normalise_username(raw: str) -> str:
    """The username as a login name; `Rejected` (username_invalid) if it is none."""
    if raw.isascii():
        value = raw.strip().lower()
        if _ASCII_USERNAME.fullmatch(value):
            return value
    else:
        check_characters("username", raw)
        value = _fold("username", raw.strip())
    if not 1 <= len(value) <= username_chars_max:
        raise _not_a_username(f"must have 1 to {username_chars_max} characters")
    if not _is_letter_or_digit(value[0]):
        raise _not_a_username("must start with a letter or a digit")
    if _INVISIBLE.search(value) or not all(_is_allowed_in_username(character) for character in value):
        raise _not_a_username("may hold letters, digits, `.`, `_` and `-` only")
    return value


def normalise_phone(raw: str, country: str | None = None) -> str:
    """The phone number in E.164; `Rejected` (phone_invalid) if it is none.

    Anything of the form `+` and 2 to 15 digits is taken as it is, spaces, dashes, dots and parentheses removed:
    numbering plans change faster than software. A national number needs `country` (ISO 3166-1 alpha-2) and must be
    valid there.
    """
    if _E164.fullmatch(raw):
        return raw
    if len(raw) > phone_chars_max:
        raise _not_a_phone(f"must have at most {phone_chars_max} characters")
    check_characters("phone", raw)
    bare = _PHONE_PUNCTUATION.sub("", raw.strip())
    if _E164.fullmatch(bare) and "(0)" not in raw:  # +49 (0)30: a trunk prefix, which only the numbering plan can drop
        return bare
    return _read_phone(raw, country)


@lru_cache(maxsize=256)  # a name is read when it is validated, and soon again when it is compared or hashed
def _split_international(raw: str) -> tuple[str, str, str]:
    if len(raw) > email_chars_max:
        raise _not_an_email(f"it must have at most {email_chars_max} characters")
    check_characters("email", raw)
    local, at, domain = normalize("NFKC", raw.strip()).rpartition("@")
    local = _fold("email", local)
    if any(category(character)[0] in "CZ" for character in local) or _INVISIBLE.search(local):
        raise _not_an_email("the part before the `@` has a character that cannot be seen")
    return local, at, domain.lower() if domain.isascii() else domain


@lru_cache(maxsize=16_384)
def _domain(domain: str) -> str:
    """The domain in ASCII. Most users share few domains, so the cache spares most of the work."""
    if not domain.isascii() or "xn--" in domain:
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise _not_an_email("the part after the `@` is not a domain name") from None
    if not _DOMAIN.fullmatch(domain):
        raise _not_an_email("the part after the `@` is not a domain name with at least two labels")
    return domain


def _fold(field: str, text: str) -> str:
    """NFKC and case folding, repeated until nothing changes: one alone can undo the other (Unicode 3.13, D146)."""
    for _ in range(4):
        folded = normalize("NFKC", text.casefold())
        if folded == text:
            return text
        text = folded
    raise Rejected(f"{field}_invalid", field, f"`{field}` has no stable normal form")


def _is_letter_or_digit(character: str) -> bool:
    kind = category(character)
    return kind[0] == "L" or kind == "Nd"


def _is_allowed_in_username(character: str) -> bool:
    return character in "._-" or category(character)[0] in "LM" or category(character) == "Nd"


def _read_phone(raw: str, country: str | None) -> str:
    import phonenumbers  # its metadata is large, and most numbers never need it

    if country is None and not raw.lstrip().startswith(("+", "＋")):
        raise _not_a_phone("must start with `+` and the country's code, or come with a country")
    try:
        number = phonenumbers.parse(raw, country)
    except phonenumbers.NumberParseException:
        raise _not_a_phone("must be a phone number such as +4930123456") from None
    if number.extension or not phonenumbers.is_valid_number(number):
        raise _not_a_phone("is not a valid number; with `+`, the country's code and digits only it is taken as it is")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _not_an_email(why: str) -> Rejected:
    return Rejected("email_invalid", "email", f"`email` is not an email address: {why}")


def _not_a_username(why: str) -> Rejected:
    return Rejected("username_invalid", "username", f"`username` {why}")


def _not_a_phone(why: str) -> Rejected:
    return Rejected("phone_invalid", "phone", f"`phone` {why}")
