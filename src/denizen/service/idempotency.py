"""Idempotency keys: the first outcome of a command, kept with its events for a day.

The record is written in the transaction of the events and lives in their bucket, so it can neither be lost nor lag. A
key therefore protects the requests that go to one bucket: all requests on one user, and all registrations whose first
login name is the same.
"""

from hashlib import blake2b
from uuid import UUID

import asyncpg
from msgspec import Struct

from denizen.service.context import Context
from denizen.service.router import Router
from denizen.sharding.ids import Bucket

_FIND = """
    select i.user_id, i.version, i.fingerprint, e.sequence
    from denizen.idempotency i join denizen.events e on e.stream = i.user_id and e.version = i.version
    where i.bucket = $1 and i.key = $2
"""


class Record(Struct, frozen=True):
    """What a key stands for: the user's version that the first request led to."""

    user_id: UUID
    version: int
    fingerprint: bytes
    sequence: int


def stored_key(context: Context) -> bytes | None:
    """The key as it is stored: a digest, for clients put anything into keys."""
    if context.idempotency_key is None:
        return None
    return blake2b(context.idempotency_key.encode(), digest_size=16).digest()


def stored_fingerprint(context: Context) -> bytes | None:
    """The digest of the request that goes with the key; a caller that gives none promises to reuse no key."""
    return None if context.idempotency_key is None else context.fingerprint or b""


async def find(router: Router, bucket: Bucket, context: Context) -> Record | None:
    """What was done in this bucket under the context's key, if anything."""
    key = stored_key(context)
    if key is None:
        return None

    async def ask(connection: asyncpg.Connection) -> asyncpg.Record | None:
        return await connection.fetchrow(_FIND, bucket, key)

    row = await router.read(bucket, ask)
    return None if row is None else Record(*row)
