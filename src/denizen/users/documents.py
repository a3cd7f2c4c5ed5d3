"""The JSON documents that come in, decoded and typed in one pass, and a clear sentence when that fails.

The decoder of msgspec checks types and unknown fields while it parses, which is as quick as parsing alone. Its messages
name JSON paths and Python types; `_explain` turns them into words about fields. Only that slow path looks twice.
"""

import json
import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from .commands import UserPatch
from .rejections import Rejected


class NameDocument(Struct, gc=False, forbid_unknown_fields=True):
    """A name in parts."""

    given: str | None = None
    family: str | None = None


class ProfileDocument(Struct, gc=False, forbid_unknown_fields=True):
    """What every document of a new user may hold."""

    email: str | None = None
    username: str | None = None
    phone: str | None = None
    name: NameDocument | None = None
    display_name: str | None = None
    locale: str | None = None
    country: str | None = None
    time_zone: str | None = None
    picture_url: str | None = None
    attributes: dict[str, Any] | None = None


class ImportDocument(ProfileDocument):
    """A user to import: maybe with the hash that another system made of the password."""

    password_hash: str | None = None


class RequestDocument(ProfileDocument):
    """A user who registers: maybe with a password."""

    password: str | None = None


Document = TypeVar("Document", ImportDocument, RequestDocument, UserPatch)

_DECODERS: Final = {kind: msgspec.json.Decoder(kind) for kind in (ImportDocument, RequestDocument, UserPatch)}

_MISMATCH: Final = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_AT: Final = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`\Z")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_SHOWN_CHARS_MAX: Final = 100

_WORDS: Final = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "dict": "an object",
    "array": "an array",
    "null": "null",
}


def decode(kind: type[Document], raw: bytes | dict[str, Any]) -> Document:
    """The document that `raw` holds, JSON or what was decoded from it; `Rejected` names the field that is wrong."""
    try:
        if isinstance(raw, dict):
            return msgspec.convert(raw, kind)
        return _DECODERS[kind].decode(raw)  # type: ignore[return-value]  # the decoder of this kind
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise _explain_malformed(raw, error) from None
    except RecursionError:
        raise Rejected("malformed", None, "the input nests too deep") from None


def _explain(message: str) -> Rejected:
    """Turn the decoder's message into a rejection that names the field."""
    at = _AT.search(message)
    path = at["path"].replace("[...]", "") if at else ""
    what = f"`{path}`" if path else "the input"
    message = message[: at.start()] if at else message
    if unknown := _UNKNOWN.fullmatch(message):
        return _unknown_field(f"{path}.{unknown['field']}" if path else unknown["field"])
    if at and at["key"]:
        return Rejected("wrong_type", path or None, f"the names in {what} must be strings")
    if "out of range" in message:
        return Rejected("wrong_value", path or None, f"{what} has a number that is out of range")
    mismatch = _MISMATCH.fullmatch(message)
    if mismatch is None:
        return Rejected("wrong_type", path or None, f"{what}: {message}")
    expected, got = in_words(mismatch["expected"].removesuffix(" | null")), in_words(mismatch["got"])
    return Rejected("wrong_type" if path else "malformed", path or None, f"{what} must be {expected}, not {got}")


def _unknown_field(field: str) -> Rejected:
    """The field's name is the caller's text: shown only when it is short and plain."""
    if len(field) > _SHOWN_CHARS_MAX or not field.isprintable():
        field = field[:_SHOWN_CHARS_MAX].encode("unicode_escape").decode() + "…"
    return Rejected("unknown_field", field, f"`{field}` is not a field known here")


def in_words(types: str) -> str:
    """What JSON calls these types of the decoder's messages."""
    return " or ".join(_WORDS.get(word, f"`{word}`") for word in types.split(" | "))


def _explain_malformed(raw: bytes | dict[str, Any], error: Exception) -> Rejected:
    """The input is no JSON in UTF-8; say which field has the bytes or the surrogate at fault, if it is that."""
    if isinstance(raw, dict):
        return Rejected("malformed", None, f"the input is not valid: {error}")
    try:
        field = _field_with_surrogate(json.loads(bytes(raw).decode("utf-8", "surrogateescape")))
    except (ValueError, RecursionError):
        field = None
    if field is not None:
        what = f"`{field}`" if field else "a field's name"
        detail = f"{what} must be well-formed Unicode, without bytes that are not UTF-8 and without lone surrogates"
        return Rejected("text_invalid", field or None, detail)
    reason = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
    return Rejected("malformed", None, f"the input is not a JSON object: {reason}")


def _field_with_surrogate(value: Any, path: str = "") -> str | None:
    if isinstance(value, str):
        return path if _SURROGATE.search(value) else None
    if isinstance(value, dict):
        if any(_SURROGATE.search(key) for key in value):
            return path
        members = [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
    elif isinstance(value, list):
        members = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return None
    return next((found for key, item in members if (found := _field_with_surrogate(item, key)) is not None), None)
