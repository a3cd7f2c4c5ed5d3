"""JSON from outside: decoded with msgspec, member names unique, errors with the byte they are at.

RFC 8259 leaves the meaning of a repeated member name open; which one counts would differ between us and whatever
looked at the request before. So it is refused. Finding it is nearly free: each member has a colon, so a text with as
many colons as decoded members has no repetition. Only texts with more colons (URLs, times) are read a second time.
"""

import json
import re
from typing import Any, Final

import msgspec

from denizen.http.refusals import MalformedJson

_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_decode: Final = msgspec.json.Decoder().decode


def decode_json(raw: bytes) -> Any:
    """The JSON value in `raw`, or `MalformedJson` with `byte_offset`, where it is known."""
    try:
        value = _decode(raw)
    except UnicodeDecodeError as error:
        raise MalformedJson("the body has a string that is not UTF-8", byte_offset=_first_invalid_byte(raw)) from error
    except RecursionError:
        raise MalformedJson("the body is nested too deep") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise _malformed(raw, str(error)) from None
    if raw.count(b":") != _count_members(value):
        _refuse_repeated_members(raw)
    return value


def _malformed(raw: bytes, message: str) -> MalformedJson:
    if not raw:
        return MalformedJson("the body is empty, but this route needs JSON", byte_offset=0)
    found = _BYTE.search(message)
    offset = int(found[1]) if found else len(raw)
    what = message.removeprefix("JSON is malformed: ").split(" (byte")[0]
    return MalformedJson(f"the body is not JSON: {what[:1].lower()}{what[1:]} at byte {offset}", byte_offset=offset)


def _first_invalid_byte(raw: bytes) -> int:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _count_members(value: Any) -> int:
    count, inner = 0, value
    if isinstance(value, dict):
        count, inner = len(value), value.values()
    elif not isinstance(value, list):
        return 0
    for item in inner:
        if isinstance(item, (dict, list)):
            count += _count_members(item)
    return count


def _refuse_repeated_members(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise MalformedJson("the body is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"the body names the member {repeated[:60]!r} of an object twice")
