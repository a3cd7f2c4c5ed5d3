"""Attributes: what the application keeps about its users, as a JSON object that the domain does not interpret.

They change by JSON merge patch (RFC 7396): null removes a member, an object merges into an object, anything else
replaces. So a member is never null (in an array, null is a value like any other). Comparison is that of JSON, where
`1` is not `true`, unlike Python's.
"""

import re
from math import isfinite
from typing import Any, Final

from msgspec import json

from .limits import attribute_key_chars_max, attributes_bytes_max, attributes_depth_max
from .rejections import Rejected
from .text import check_characters

# As everywhere, but texts of several lines and of mixed directions are the application's business.
_REFUSED: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INTEGER_MIN, _INTEGER_MAX = -(1 << 63), (1 << 64) - 1  # what MessagePack can hold

_compact: Final = json.Encoder()
_canonical: Final = json.Encoder(order="sorted")


def check_attributes(attributes: dict[str, Any]) -> None:
    """Raise `Rejected`, naming the member, unless these attributes, or this patch of them, can be kept."""
    _check_object("attributes", attributes, 1)
    check_size(attributes)


def check_size(attributes: dict[str, Any]) -> None:
    """Raise `Rejected` if the attributes take too many bytes as compact JSON."""
    if len(_compact.encode(attributes)) > attributes_bytes_max:
        detail = f"`attributes` must take at most {attributes_bytes_max} bytes as compact JSON"
        raise Rejected("attributes_too_large", "attributes", detail)


def merge(target: Any, patch: Any) -> Any:
    """The target after the merge patch (RFC 7396, 2). Neither is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value) if isinstance(value, dict) else value
    return result


def difference(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The top-level members with a new value, and the names of those that are gone."""
    changed = {key: value for key, value in after.items() if key not in before or not _same(before[key], value)}
    return changed, [key for key in before if key not in after]


def _same(one: Any, other: Any) -> bool:
    return one is other or _canonical.encode(one) == _canonical.encode(other)


def _check_object(path: str, members: dict[str, Any], depth: int) -> None:
    _check_depth(depth)
    for key, value in members.items():
        if type(key) is not str:
            raise Rejected("wrong_type", path, f"the names in `{path}` must be strings")
        if len(key) > attribute_key_chars_max:
            detail = f"a name in `{path}` must have at most {attribute_key_chars_max} characters"
            raise Rejected("too_long", path, detail)
        if not key.isprintable():
            check_characters(path, key)
        kind = type(value)
        if not (kind is bool or value is None or (kind is str and value.isprintable())):
            _check_value(f"{path}.{key}", value, depth)


def _check_value(path: str, value: Any, depth: int) -> None:
    match value:
        case None | bool():
            pass
        case str():
            if found := _REFUSED.search(value):
                detail = f"`{path}` must not contain the character U+{ord(found[0]):04X}"
                raise Rejected("text_invalid", path, detail)
        case int():
            if not _INTEGER_MIN <= value <= _INTEGER_MAX:
                raise Rejected("wrong_value", path, f"`{path}` must be an integer of at most 64 bits")
        case float():
            if not isfinite(value):
                raise Rejected("wrong_value", path, f"`{path}` must be a finite number")
        case dict():
            _check_object(path, value, depth + 1)
        case list():
            _check_depth(depth + 1)
            for index, item in enumerate(value):
                _check_value(f"{path}[{index}]", item, depth + 1)
        case _:
            raise Rejected("wrong_value", path, f"`{path}` must be a JSON value")


def _check_depth(depth: int) -> None:
    if depth > attributes_depth_max:
        detail = f"`attributes` must not nest deeper than {attributes_depth_max} levels"
        raise Rejected("attributes_too_deep", "attributes", detail)
