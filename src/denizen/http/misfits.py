"""A body that has not the shape of its document, told in words about its fields: the decoder names Python's types."""

import re
from typing import Final

from denizen.errors import Invalid
from denizen.users.documents import in_words

_AT: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TYPE: Final = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_LENGTH: Final = re.compile(r"Expected `(str|array|object)` of length ([<>]=) (\d+)")
_RANGE: Final = re.compile(r"Expected `(?:int|float)` ([<>]=?) (\S+)")
_CHOICE: Final = re.compile(r"Invalid enum value '(.*)'", re.DOTALL)

_THAN: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_PARTS: Final = {"str": "character", "array": "item", "object": "member"}
_SHOWN_CHARS_MAX: Final = 60


def misfit(message: str) -> Invalid:
    """What the decoder's message says, with the field at fault."""
    at = _AT.search(message)
    field, what = (at[1], message[: at.start()]) if at else ("", message)
    code = "wrong_value"
    if found := _UNKNOWN.fullmatch(what):
        field, code = _inside(field, found[1]), "unknown_field"
        what = ": there is no such field"
    elif found := _MISSING.fullmatch(what):
        field, code = _inside(field, found[1]), "missing_field"
        what = ": this field is required"
    elif found := _TYPE.fullmatch(what):
        code = "wrong_type"
        what = f" must be {_type(found[1], found[2])}"
    elif found := _LENGTH.fullmatch(what):
        part = _PARTS[found[1]]
        what = f" must have {_THAN[found[2]]} {found[3]} {part if found[3] == '1' else part + 's'}"
    elif found := _RANGE.fullmatch(what):
        what = f" must be {_THAN[found[1]]} {found[2]}"
    elif found := _CHOICE.fullmatch(what):
        what = f" cannot be {found[1][:_SHOWN_CHARS_MAX]!r}"
    elif what == "Invalid UUID":
        what = " must be a UUID"
    elif what.startswith("Expected `str` matching regex"):
        what = " has a character that it cannot have"
    else:
        what = f": {what}"
    detail = f"`{field[:100]}`{what}" if field else f"the input{what}"
    return Invalid(detail, errors=[{"field": field[:100] or None, "code": code, "detail": detail}])


def _inside(outer: str, name: str) -> str:
    return ".".join(part for part in (outer, name) if part)


def _type(expected: str, got: str) -> str:
    words = in_words(expected.removesuffix(" | null"))
    if "int" not in expected.split(" | "):
        return f"{words}, not {in_words(got)}"
    words = words.replace("a number", "a whole number")
    return words if got == "float" else f"{words}, not {in_words(got)}"
