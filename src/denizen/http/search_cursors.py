"""Cursors of searches: the place where a page ended, in an order that the search itself stands for.

A cursor is base64url of a format number, MessagePack and a checksum. It belongs to one search: with other filters, or
another order, its place would mean nothing, so it is refused. It never expires.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID
from zlib import crc32

import msgspec
from msgspec import Struct

from denizen.http.refusals import InvalidParameter
from denizen.http.requests import Request

Key = tuple[str | datetime | int, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FORMAT: Final = b"\x02"
_NOT_THE_SEARCH: Final = ("cursor", "limit", "position")


class _Time(Struct, frozen=True, array_like=True, tag="t"):
    micros: int


class _Text(Struct, frozen=True, array_like=True, tag="s"):
    text: str


class _Number(Struct, frozen=True, array_like=True, tag="n"):
    number: int


class _Mark(Struct, frozen=True, array_like=True):
    """What a cursor holds: the search it belongs to, the key and the user."""

    search: int
    key: list[_Time | _Text | _Number]
    user_id: UUID


def cursor_at(key: Key, user_id: UUID, request: Request) -> str:
    """The cursor of the page that starts behind this key and user, for the request's search."""
    data = _FORMAT + msgspec.msgpack.encode(_Mark(_fingerprint(request), [_packed(part) for part in key], user_id))
    return urlsafe_b64encode(data + crc32(data).to_bytes(4, "big")).decode()


def place_of(request: Request) -> tuple[Key, UUID] | None:
    """The key and user behind which the page starts, None for the first page."""
    cursor = request.query.get("cursor")
    if cursor is None:
        return None
    try:
        data = urlsafe_b64decode(cursor) if cursor.isascii() else b""
        body, check = data[:-4], data[-4:]
        if body[:1] != _FORMAT or crc32(body).to_bytes(4, "big") != check:
            raise ValueError("mangled")
        mark = msgspec.msgpack.decode(body[1:], type=_Mark)
        key = tuple(_unpacked(part) for part in mark.key)
    except (binascii.Error, ValueError, OverflowError):
        raise InvalidParameter("cursor", "cursor", "`cursor` is not one that this service gave") from None
    if mark.search != _fingerprint(request):
        detail = "`cursor` belongs to another search: repeat the filters as they were"
        raise InvalidParameter("cursor", "cursor", detail)
    return key, mark.user_id


def _fingerprint(request: Request) -> int:
    rest = sorted((name, value) for name, value in request.query.items() if name not in _NOT_THE_SEARCH)
    return crc32(repr((request.path, rest)).encode())


def _packed(part: str | datetime | int) -> _Time | _Text | _Number:
    if isinstance(part, datetime):
        return _Time((part - _EPOCH) // _MICROSECOND)
    return _Text(part) if isinstance(part, str) else _Number(part)


def _unpacked(part: _Time | _Text | _Number) -> str | datetime | int:
    if isinstance(part, _Time):
        return _EPOCH + timedelta(microseconds=part.micros)
    return part.text if isinstance(part, _Text) else part.number
