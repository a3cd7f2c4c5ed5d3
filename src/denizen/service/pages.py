"""Joining the shards' pages of users into one that neither misses nor repeats a user while buckets move.

Every shard says with its page which buckets it serves in the page's range, in one snapshot. For a moment two shards may
serve a bucket (the fenced source, and the target that has just opened): the one with the higher epoch is right. Or
none does, because one was asked too late and the other too early: then all are asked again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from denizen.events.places import read_served
from denizen.events.reading import read_page
from denizen.events.records import StoredUser
from denizen.sharding.ids import BUCKETS, Bucket, Epoch, ShardId, bucket_of

Key = tuple[int, UUID]
"""The place of a user in the list: bucket and id."""


class ShardPage(NamedTuple):
    """A shard's users after a place, and the buckets it serves from that place to the page's end."""

    users: Sequence[StoredUser]
    served: Mapping[Bucket, Epoch]
    full: bool  # there may be more users after the last one

    @property
    def end(self) -> Key:
        """Up to where this page is complete."""
        return _key(self.users[-1]) if self.full else _END


class Joined(NamedTuple):
    """Users in order. `end`: up to where they are complete; None if that is the end of the list."""

    users: list[StoredUser]
    end: Key | None


async def read_shard_page(connection: asyncpg.Connection, after: Key, limit: int) -> ShardPage:
    """This shard's page, in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        users = await read_page(connection, after, limit)
        full = len(users) == limit
        last = bucket_of(users[-1].id) if full else BUCKETS - 1
        return ShardPage(users, await read_served(connection, max(after[0], 0), last), full)


def joined(pages: Mapping[ShardId, ShardPage], after: Key, limit: int) -> Joined | None:
    """At most `limit` users after that place; None if some bucket in between is served by nobody."""
    end = min(page.end for page in pages.values())
    owners: dict[Bucket, tuple[Epoch, ShardId]] = {}
    for shard, page in pages.items():
        for bucket, epoch in page.served.items():
            if bucket not in owners or epoch > owners[bucket][0]:
                owners[bucket] = (epoch, shard)
    users = sorted(
        (
            user
            for shard, page in pages.items()
            for user in page.users
            if _key(user) <= end and owners[bucket_of(user.id)][1] == shard
        ),
        key=_key,
    )
    if len(users) >= limit:
        users = users[:limit]
        end = _key(users[-1])
    if not all(Bucket(bucket) in owners for bucket in range(max(after[0], 0), end[0] + 1)):
        return None
    return Joined(users, None if end == _END else end)


_END: Key = (BUCKETS - 1, UUID(int=2**128 - 1))


def _key(user: StoredUser) -> Key:
    return bucket_of(user.id), user.id
