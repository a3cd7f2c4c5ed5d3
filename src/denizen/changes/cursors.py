"""A cursor: how far a consumer is in each bucket, as text that it keeps and gives back.

There is no order between buckets, so a place in the feed is a position in every one of them. A cursor holds them all:
nothing about a consumer is kept on our side, and any gateway, today's or tomorrow's, goes on exactly there. It takes
about ten bits a bucket: 3,000 characters for a young deployment, 8,000 for one with a hundred million users.

    format (1 byte)   keyed checksum (8)   first and last bucket (2 + 2)   width (1)   least sequence (8)   the rest

The rest: each sequence less the least one, `width` bytes each, all first bytes, then all second bytes …, compressed.
The checksum is keyed with the deployment, so that a mangled cursor, or one of another deployment, is refused instead
of silently beginning somewhere. It is no secret.
"""

import binascii
import sys
import zlib
from array import array
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from struct import Struct as Layout
from struct import error as LayoutError
from typing import Final

from msgspec import Struct

from denizen.errors import Invalid
from denizen.sharding.ids import BUCKETS

_FORMAT: Final = 3
_HEAD: Final = Layout(">B8s")
_FACTS: Final = Layout(">HHBQ")
_LITTLE_CODES: Final = ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
CURSOR_CHARS_MAX: Final = 49_152  # more than 4,096 sequences of eight random bytes would take


class Place(Struct):
    """The last sequence given of each bucket from `first` to `last`, in order."""

    first: int
    last: int
    sequences: list[int]


def encode(place: Place, key: int) -> str:
    """The cursor of this place; `key` is the deployment's."""
    least = min(place.sequences)
    rest = [sequence - least for sequence in place.sequences]
    width = max(1, (max(rest).bit_length() + 7) // 8)
    size, code = next(pair for pair in _LITTLE_CODES if pair[0] >= width)
    raw = _little(array(code, rest)).tobytes()
    planes = b"".join(raw[plane::size] for plane in range(width))
    body = _FACTS.pack(place.first, place.last, width, least) + zlib.compress(planes, 6, -15)
    return urlsafe_b64encode(_HEAD.pack(_FORMAT, _checksum(body, key)) + body).rstrip(b"=").decode()


def decode(cursor: str, key: int) -> Place:
    """The place of a cursor; `Invalid` for what this deployment did not give."""
    try:
        if not cursor.isascii() or len(cursor) > CURSOR_CHARS_MAX:
            raise ValueError("not a cursor")
        data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        (number, checksum), body = _HEAD.unpack_from(data), data[_HEAD.size :]
        if number != _FORMAT or checksum != _checksum(body, key):
            raise ValueError("mangled")
        return _place(body)
    except (binascii.Error, ValueError, zlib.error, LayoutError) as error:
        raise Invalid(
            "this is no cursor of this deployment's feed of changes", field="cursor", rule="cursor"
        ) from error


def _place(body: bytes) -> Place:
    first, last, width, least = _FACTS.unpack_from(body)
    count = last - first + 1
    planes = zlib.decompressobj(-15).decompress(body[_FACTS.size :], count * width + 1)
    if not 0 <= first <= last < BUCKETS or len(planes) != count * width:
        raise ValueError("mangled")
    size, code = next(pair for pair in _LITTLE_CODES if pair[0] >= width)
    raw = bytearray(count * size)
    for plane in range(width):
        raw[plane::size] = planes[plane * count : (plane + 1) * count]
    rest: array[int] = array(code)
    rest.frombytes(raw)
    return Place(first, last, [least + sequence for sequence in _little(rest)])


def _checksum(body: bytes, key: int) -> bytes:
    return blake2b(body, digest_size=8, key=key.to_bytes(8, "big", signed=True), person=b"changes").digest()


def _little(numbers: "array[int]") -> "array[int]":
    """The same bytes on every machine."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
