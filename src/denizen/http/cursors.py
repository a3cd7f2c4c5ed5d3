"""Cursors of the list of users: opaque to clients, a place in the order (bucket, id) to us.

A cursor is base64url of a format number, the id of the last user seen (which carries its bucket) and a checksum, so
that a mangled one is refused instead of silently starting somewhere. It is no secret and never expires: it names a
place in an order that does not change, whether or not the user at that place still exists.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final
from uuid import UUID
from zlib import crc32

from denizen.http.refusals import InvalidParameter
from denizen.sharding.ids import bucket_of

_FORMAT: Final = b"\x01"
_BYTES: Final = 1 + 16 + 4


def cursor_after(user_id: UUID) -> str:
    """The cursor of the page that starts behind this user."""
    data = _FORMAT + user_id.bytes
    return urlsafe_b64encode(data + crc32(data).to_bytes(4, "big")).decode()


def parse_cursor(cursor: str) -> tuple[int, UUID]:
    """The place (bucket, id) behind which the page starts; `InvalidParameter` for what this service did not give."""
    try:
        data = urlsafe_b64decode(cursor) if cursor.isascii() else b""
    except (binascii.Error, ValueError):
        data = b""
    body, check = data[:-4], data[-4:]
    if len(data) != _BYTES or body[:1] != _FORMAT or crc32(body).to_bytes(4, "big") != check:
        raise InvalidParameter("cursor", "cursor", "`cursor` is not one that this service gave")
    user_id = UUID(bytes=body[1:])
    return bucket_of(user_id), user_id
