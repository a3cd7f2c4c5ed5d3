"""Every fault of a document, not only the first: a form shows each beside its field.

The checks stop at the first fault, which keeps them quick. Only a document that has one is looked at again, its fields
one at a time, by the very same checks.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from .limits import faults_max
from .rejections import Rejected

T = TypeVar("T")

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def checked(parse: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
    """What `parse` makes of the document; `Rejected` has all its faults."""
    try:
        return parse(document)
    except Rejected as first:
        raise with_all_faults(first, parse, document) from None


def with_all_faults(
    first: Rejected, parse: Callable[[dict[str, Any]], object], raw: bytes | dict[str, Any]
) -> Rejected:
    """The rejection with every fault that a field of the document has by itself, in the document's order.

    There are `faults_max` at most, and only `first` where the document is no JSON object.
    """
    try:
        document = raw if isinstance(raw, dict) else _decode(raw)
    except (ValueError, RecursionError):  # `ValueError`: also what msgspec raises
        return first
    found = list(islice(_faults(parse, document), faults_max))
    if (first.field, first.code) not in ((fault.field, fault.code) for fault in found):  # it is behind the others
        found = [first, *found[: faults_max - 1]]
    one, *others = found
    return Rejected(one.code, one.field, one.detail, tuple(others))


def _faults(parse: Callable[[dict[str, Any]], object], document: dict[str, Any]) -> Iterator[Rejected]:
    for field, part in _parts(document):
        try:
            parse(part)
        except Rejected as fault:
            if not (field == "phone" and fault.field == "country"):  # which is told for itself
                yield fault


def _parts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field as a document; a name's parts for themselves, a phone number with the country that it may need."""
    for field, value in document.items():
        if field == "name" and isinstance(value, dict):
            yield from ((field, {field: {part: text}}) for part, text in value.items())
        elif field == "phone" and "country" in document:
            yield field, {"country": document["country"], field: value}
        else:
            yield field, {field: value}
