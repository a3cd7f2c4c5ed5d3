"""Is there room on the target? How much a bucket takes, and how much is free where that can be known."""

import asyncio
import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.moving.errors import NoRoom
from denizen.sharding.ids import ShardId

# A bucket's part of the shard, by its part of the events.
_ESTIMATE: Final = """
    select b.head, (b.head * (
        select sum(pg_total_relation_size(t::regclass))
        from unnest(array['denizen.events', 'denizen.users', 'denizen.login_names']) t
    ) / greatest((select sum(x.head) from denizen.buckets x), 1))::bigint
    from denizen.buckets b where b.bucket = $1
"""


async def estimate(source: asyncpg.Connection, bucket: int) -> tuple[int, int]:
    """Events and bytes of a bucket on its source, the bytes about."""
    row = await source.fetchrow(_ESTIMATE, bucket)
    return (0, 0) if row is None else (row[0], row[1])


async def check_room(
    target: asyncpg.Connection, arguments: Mapping[str, Any], shard: ShardId, bytes_needed: int
) -> None:
    """`NoRoom` if the target's disk cannot take so much and keep a reserve. Servers elsewhere cannot be asked."""
    if not _is_local(arguments):
        return
    directory = await target.fetchval("show data_directory")
    try:
        found = await asyncio.to_thread(os.statvfs, directory)
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    if free < bytes_needed * 2 + limits.move_disk_reserve_bytes:  # its log takes as much again
        raise NoRoom(
            f"shard {shard} has {free >> 20} MiB free, and bucket and log take about {bytes_needed >> 19} MiB",
            shard=shard,
            free=free,
        )


def _is_local(arguments: Mapping[str, Any]) -> bool:
    host = str(arguments.get("host", ""))
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
