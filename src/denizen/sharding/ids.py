"""Typed ids. A user id carries its bucket, so that any id routes by itself.

A user id is a UUID version 8 (RFC 9562, 5.8): 48 bits of Unix milliseconds, 4 bits version, 12 bits bucket, 2 bits
variant, 62 bits random. The time comes first, so new rows land together in an index.
"""

import re
import secrets
from typing import Final, NewType
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as WireUUID  # the same as `uuid.UUID`, made ten times as fast
from msgspec import Struct

from denizen.errors import Invalid

UserId = NewType("UserId", UUID)
Bucket = NewType("Bucket", int)  # 0 … BUCKETS - 1
Epoch = NewType("Epoch", int)  # a bucket's ownership number, raised by each move
Sequence = NewType("Sequence", int)  # dense in its bucket, from 1
ShardId = NewType("ShardId", str)

BUCKETS: Final = 4096  # fixed for the life of a deployment

_VERSION_8: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_RANDOM_BITS: Final = 62
_USER_ID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_SEQUENCE_MAX: Final = (1 << 63) - 1


def user_id(milliseconds: int, bucket: int, noise: int) -> UserId:
    """The id of these parts: Unix milliseconds (48 bits), bucket (12 bits), noise (62 bits)."""
    return UserId(uuid_of((milliseconds & 0xFFFF_FFFF_FFFF) << 80 | _VERSION_8 | bucket << 64 | _VARIANT | noise))


def uuid_of(number: int) -> UUID:
    """The UUID of these 128 bits."""
    made: UUID = WireUUID(number.to_bytes(16))
    return made


def mint_user_id(bucket: int, milliseconds: int) -> UserId:
    """A new user id in `bucket`; `milliseconds` is the Unix time."""
    return user_id(milliseconds, bucket, secrets.randbits(_RANDOM_BITS))


def bucket_of(identifier: UUID) -> Bucket:
    """The bucket that this user id, or id of a login name's stream, carries."""
    return Bucket(identifier.int >> 64 & 0xFFF)


def parse_user_id(text: str) -> UserId:
    """The user id in `text`; `Invalid` unless it is a UUID of version 8 in its usual form of 36 characters.

    The id of a login name's stream is refused too (its variant differs): it names no user.
    """
    if _USER_ID.fullmatch(text) is None:
        raise Invalid(f"{text!r:.60} is not a user id of this service", field="id", rule="user_id")
    return UserId(WireUUID(text))


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in the log of a bucket. Positions of one bucket compare; those of two do not."""

    bucket: Bucket
    sequence: Sequence

    def token(self) -> str:
        """The position as clients carry it, opaque to them."""
        return f"{self.bucket:03x}-{self.sequence:x}"

    @classmethod
    def parse(cls, token: str) -> "Position":
        """The position that `token` stands for; `Invalid` if it is none."""
        bucket, dash, sequence = token.partition("-")
        try:
            position = cls(Bucket(int(bucket, 16)), Sequence(int(sequence, 16)))
        except ValueError:
            position = None
        if (
            not dash
            or position is None
            or position.token() != token
            or not (0 <= position.bucket < BUCKETS and 0 <= position.sequence <= _SEQUENCE_MAX)
        ):
            raise Invalid("the position token is not one that this service gave", field="position", rule="position")
        return position
