"""From JSON to commands: every problem is named by its field, and what passes is in the form that is kept.

The three functions accept JSON bytes, or the dict that was decoded from them. Imports send millions of users through
`registration_from`, so it is written for speed: one typed decoding pass, then one quick check a field, each with a
short way for the common case. Texts come out trimmed and in NFC; a profile text that is empty then is as not given.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import UNSET
from msgspec.structs import replace

from . import places
from .attributes import check_attributes, merge
from .commands import NamePatch, Registration, RegistrationRequest, UserPatch
from .documents import ImportDocument, NameDocument, ProfileDocument, RequestDocument, decode
from .limits import (
    display_name_chars_max,
    email_chars_max,
    name_part_chars_max,
    phone_chars_max,
    picture_url_chars_max,
    username_chars_max,
)
from .login_names import normalise_email, normalise_phone, normalise_username
from .passwords import check_hash, check_password
from .rejections import Rejected
from .state import Name
from .text import clean


def registration_from(raw: bytes | dict[str, Any]) -> Registration:
    """A user to import: the profile's fields and maybe `password_hash`."""
    document = decode(ImportDocument, raw)
    if document.password_hash is not None:
        check_hash(document.password_hash)
    return _registration(document, document.password_hash)


def request_from(raw: bytes | dict[str, Any]) -> RegistrationRequest:
    """A user who registers: the profile's fields and maybe `password`, which is checked but not hashed here."""
    document = decode(RequestDocument, raw)
    if document.password is not None:
        check_password(document.password)
    return RegistrationRequest(_registration(document, None), document.password)


def patch_from(raw: bytes | dict[str, Any]) -> UserPatch:
    """A change of a user as a JSON merge patch (RFC 7396): absent leaves a field as it is, null clears it."""
    patch = decode(UserPatch, raw)
    fields = raw if isinstance(raw, dict) else _CHECKS
    given = {field: getattr(patch, field) for field in fields}
    return replace(patch, **{field: _CHECKS[field](value) for field, value in given.items() if _is_value(value)})


def _registration(document: ProfileDocument, password_hash: str | None) -> Registration:
    email, username, phone, country = document.email, document.username, document.phone, document.country
    name, attributes = document.name, document.attributes
    if country is not None:
        country = _country(country)
    return Registration(
        None if email is None else _email(email),
        None if username is None else _username(username),
        None if phone is None else normalise_phone(phone, country),
        None if name is None else _name(name),
        None if document.display_name is None else _display_name(document.display_name),
        None if document.locale is None else _locale(document.locale),
        country,
        None if document.time_zone is None else _time_zone(document.time_zone),
        None if document.picture_url is None else _picture_url(document.picture_url),
        {} if attributes is None else _attributes(attributes),
        password_hash,
    )


def _email(raw: str) -> str:
    email = clean("email", raw, email_chars_max)
    normalise_email(email)
    return email


def _username(raw: str) -> str:
    username = clean("username", raw, username_chars_max)
    normalise_username(username)
    return username


def _phone(raw: str) -> str:
    """A phone number in a patch: the decider reads it, for it knows the user's country."""
    return clean("phone", raw, phone_chars_max)


def _name(document: NameDocument) -> Name | None:
    given, family = document.given, document.family
    if given is not None:
        given = clean("name.given", given, name_part_chars_max) or None
    if family is not None:
        family = clean("name.family", family, name_part_chars_max) or None
    return None if given is None and family is None else Name(given, family)


def _name_patch(patch: NamePatch) -> NamePatch:
    given, family = patch.given, patch.family
    return NamePatch(
        (clean("name.given", given, name_part_chars_max) or None) if isinstance(given, str) else given,
        (clean("name.family", family, name_part_chars_max) or None) if isinstance(family, str) else family,
    )


def _display_name(raw: str) -> str | None:
    return clean("display_name", raw, display_name_chars_max) or None


def _country(raw: str) -> str | None:
    return places.country(raw) if raw.strip() else None


def _locale(raw: str) -> str | None:
    return places.locale(raw) if raw.strip() else None


def _time_zone(raw: str) -> str | None:
    return places.time_zone(raw) if raw.strip() else None


def _picture_url(raw: str) -> str | None:
    """An absolute http or https URL (RFC 3986, so ASCII) without credentials; the domain never fetches it."""
    url = clean("picture_url", raw, picture_url_chars_max)
    if not url:
        return None
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or parts.username is not None or not url.isascii() or any(sign in url for sign in ' "<>\\^`{|}'):
        detail = "`picture_url` must be an absolute http or https URL, percent-encoded and without credentials"
        raise Rejected("picture_url_invalid", "picture_url", detail)
    return url


def _attributes(raw: dict[str, Any]) -> dict[str, Any]:
    """New attributes are a merge patch of nothing: null members say nothing."""
    check_attributes(raw)
    attributes: dict[str, Any] = merge({}, raw)
    return attributes


def _attributes_patch(patch: dict[str, Any]) -> dict[str, Any]:
    check_attributes(patch)
    return patch


def _is_value(value: object) -> bool:
    return value is not None and value is not UNSET


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "email": _email,
    "username": _username,
    "phone": _phone,
    "name": _name_patch,
    "display_name": _display_name,
    "locale": _locale,
    "country": _country,
    "time_zone": _time_zone,
    "picture_url": _picture_url,
    "attributes": _attributes_patch,
}
