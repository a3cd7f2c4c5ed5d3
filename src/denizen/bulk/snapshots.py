"""One snapshot of every shard, between which every bucket is seen exactly once, whatever moves meanwhile.

Each shard's snapshot says which buckets it serves. A bucket that two of them serve (fenced at its source, just opened
at its target) is read where its epoch is higher. A bucket that none serves was closed in one snapshot and not yet open
in another: then all snapshots are taken again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.bulk.shards import Shards
from denizen.sharding.ids import BUCKETS, ShardId

Begin = Callable[[asyncpg.Connection], Awaitable[Any]]
_BUCKETS = "select bucket, epoch, head from denizen.buckets where state in ('open', 'fenced') order by bucket"


class Ownership(Struct, frozen=True):
    """Who serves what in these snapshots, and each bucket's head there."""

    owners: dict[int, ShardId]
    heads: dict[int, int]

    @property
    def missing(self) -> list[int]:
        """Buckets that no shard serves."""
        return [bucket for bucket in range(BUCKETS) if bucket not in self.owners]

    def buckets_of(self, shard: ShardId) -> list[int]:
        """What is to be read on this shard, in order."""
        return sorted(bucket for bucket, owner in self.owners.items() if owner == shard)


async def take_snapshots(shards: Shards, begin: Begin) -> Ownership:
    """Begin a transaction that reads one snapshot on every shard's connection; who serves what in them.

    `begin` begins it. Buckets are missing from the answer if nobody serves them for long.
    """
    until = time.monotonic() + limits.snapshots_settle_s
    while True:
        await shards.refresh()
        for shard in shards:
            await begin(await shard.connection())
        found = await _look(shards)
        if not found.missing or time.monotonic() > until:
            return found
        for shard in shards:
            await (await shard.connection()).execute("rollback")
        await asyncio.sleep(limits.list_retry_s)


async def _look(shards: Shards) -> Ownership:
    newest: dict[int, tuple[int, int, ShardId]] = {}
    for shard in shards:
        for bucket, epoch, head in await (await shard.connection()).fetch(_BUCKETS):
            if bucket not in newest or epoch > newest[bucket][0]:
                newest[bucket] = (epoch, head, shard.id)
    owners = {bucket: owner for bucket, (_, _, owner) in newest.items()}
    return Ownership(owners, {bucket: head for bucket, (_, head, _) in newest.items()})
