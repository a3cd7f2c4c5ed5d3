"""Wrapping secrets anew, under the newest key, beside live traffic.

A batch is one transaction on some rows of one bucket. Rows that somebody else has locked are left for the next pass,
so nobody ever waits for a lock of ours twice; a secret that was destroyed meanwhile is not locked as one any more, so
it never comes back. What is done is seen from the rows themselves: an interrupted pass is simply begun again.
"""

from typing import Final

import asyncpg

from denizen import limits
from denizen.events.keyring import ID_BYTES
from denizen.events.sealing import keyring

_OLD: Final = f"""
    select sequence, stream, secret from denizen.events
    where bucket = $1 and sequence > $2 and secret is not null and substr(secret, 1, {ID_BYTES}) <> $3
    order by sequence limit $4 for no key update skip locked
"""  # noqa: S608 - only constants
_SWAP: Final = """
    update denizen.events e set secret = n.secret
    from unnest($2::bigint[], $3::bytea[]) as n (sequence, secret)
    where e.bucket = $1 and e.sequence = n.sequence
"""
_COUNTS: Final = f"""
    select encode(substr(secret, 1, {ID_BYTES}), 'hex'), count(*) from denizen.events
    where secret is not null group by 1
"""  # noqa: S608 - only constants


async def rewrap_batch(connection: asyncpg.Connection, bucket: int, after: int) -> tuple[int, int]:
    """Wrap the next secrets of a bucket anew; how many, and the last sequence: 0 secrets at the bucket's end."""
    ring = keyring()
    async with connection.transaction():
        newest = bytes.fromhex(ring.newest)
        rows = await connection.fetch(_OLD, bucket, after, newest, limits.rewrap_batch_rows)
        if not rows:
            return 0, after
        fresh = [ring.wrap(stream.bytes, ring.unwrap(stream.bytes, secret)) for _, stream, secret in rows]
        await connection.execute(_SWAP, bucket, [row["sequence"] for row in rows], fresh)
    return len(rows), rows[-1]["sequence"]


async def count_by_key(connection: asyncpg.Connection) -> dict[str, int]:
    """How many secrets each wrapping key holds on this shard, by the key's id. It reads every event."""
    return {key: count for key, count in await connection.fetch(_COUNTS)}  # noqa: C416 - a record is no pair
