"""Which buckets a shard serves now, by its own word: the truth that maps only follow."""

from collections.abc import Iterable
from typing import Final

import asyncpg

from denizen.sharding.ids import Bucket, Epoch

_PLACES: Final = """
    select bucket, epoch, state from denizen.buckets where bucket = any ($1) and state in ('open', 'fenced')
"""
_SERVED: Final = """
    select bucket, epoch from denizen.buckets where bucket between $1 and $2 and state in ('open', 'fenced')
"""


async def read_places(connection: asyncpg.Connection, buckets: Iterable[Bucket]) -> dict[Bucket, tuple[Epoch, str]]:
    """Those of these buckets that this shard serves: at which epoch, and whether "open" or "fenced"."""
    return {bucket: (epoch, state) for bucket, epoch, state in await connection.fetch(_PLACES, list(buckets))}


async def read_served(connection: asyncpg.Connection, first: int, last: int) -> dict[Bucket, Epoch]:
    """The buckets from `first` to `last` that this shard serves, each with its epoch."""
    return {bucket: epoch for bucket, epoch in await connection.fetch(_SERVED, first, last)}  # noqa: C416 - records
