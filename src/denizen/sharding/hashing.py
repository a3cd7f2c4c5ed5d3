"""From a login name to its bucket.

The hash is part of the stored data: a change of it, or of the normalisation before it, loses every name. Golden
vectors in the tests pin it. The seed is drawn once, at a deployment's birth, so that nobody can aim names at one
bucket.
"""

from uuid import UUID

from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

from denizen.sharding.ids import BUCKETS, Bucket, uuid_of
from denizen.users.login_names import LoginName


def bucket_of_login_name(name: LoginName, seed: int) -> Bucket:
    """The bucket of a normalised login name: xxh3_64(kind, NUL, value) modulo 4,096. `seed` has 64 bits."""
    return Bucket(xxh3_64_intdigest(b"%d\0%b" % (name.kind, name.value.encode()), seed) % BUCKETS)


def stream_of_login_name(name: LoginName, seed: int) -> UUID:
    """The id of a login name's own stream of events: a hash of the name, with its bucket where a user id has it."""
    key = b"%d\0%b" % (name.kind, name.value.encode())
    bucket = xxh3_64_intdigest(key, seed) % BUCKETS
    digest = xxh3_128_intdigest(key, seed)
    high = (digest >> 64 & ~0xFFFF) | 0x8000 | bucket
    low = (digest & ((1 << 62) - 1)) | (0b11 << 62)  # not the variant of a user id: the two can never be equal
    return uuid_of(high << 64 | low)
