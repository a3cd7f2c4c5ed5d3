"""Scrubbing: after erasures, what PostgreSQL keeps of old rows is removed from its files.

PostgreSQL overwrites nothing: a row that was changed or deleted stays on its page until vacuum takes it, its bytes in
the page's free space until something else needs the room, and in the log of changes until that is recycled. So, for
every shard and the read database,

    dead rows and index entries are removed → tables are written anew → statistics are taken anew → the log is cycled

Writing a table anew locks it for as long as that takes; with `online` it is left out, and an erasure does not count as
scrubbed: its bytes may lie in free space within pages until other rows need it. Standbys follow by the log. Backups,
and logs that were archived, keep what they have until they expire.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.deployment.keyring import patient
from denizen.deployment.layout import READ_SERVER, Deployment
from denizen.projections.reached import all_have
from denizen.sharding.ids import Bucket, Position, Sequence

Tell = Callable[[str], None]

_TABLES: Final = """
    select format('%I.%I', schemaname, tablename) as name from pg_tables
    where schemaname in ('denizen', 'denizen_read') and tablename <> 'schema_migrations' order by 1
"""
_UNSCRUBBED: Final = """
    select x.user_id, x.bucket, e.sequence, x.settled_at is not null as settled from denizen.erasures x
    join lateral (
        select e.sequence from denizen.events e where e.stream = x.user_id order by e.version desc limit 1
    ) e on true
    where x.scrubbed_at is null and x.erased_at <= $1
"""
_SCRUBBED: Final = """
    update denizen.erasures set scrubbed_at = clock_timestamp()
    where scrubbed_at is null and settled_at is not null and erased_at <= $1
"""
_LAST_LOG: Final = "select max(name) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'"
_NEXT_LOG: Final = """
    select pg_walfile_name(pg_current_wal_insert_lsn()) > $1
    from (select pg_logical_emit_message(false, 'denizen', 'scrub')) as something
"""


class Scrubbed(Struct, frozen=True):
    """What a scrub did. `waiting` erasures were not settled, or not yet in every read model: scrub again later."""

    scrubbed: int
    waiting: int
    online: bool
    log_cycled: bool


async def scrub(deployment: Deployment, *, online: bool, tell: Tell) -> Scrubbed:
    """Clean every server of a deployment that has users. `BadDeployment` if one does not answer."""
    shards = {
        str(shard): server.connect_args for shard, server in deployment.shards.items() if not deployment.joins(shard)
    }
    moments: dict[str, datetime] = {}
    waiting = 0
    async with patient(deployment.read_connect_args) as read:
        for shard, arguments in shards.items():
            async with patient(arguments, f"shard {shard}") as connection:
                moments[shard] = await connection.fetchval("select clock_timestamp()")
                waiting += await _waiting(connection, read, moments[shard])
    log_cycled = True
    for name, arguments in (shards | {READ_SERVER: deployment.read_connect_args}).items():
        async with patient(arguments) as connection:
            await _clean(connection, name, online=online, tell=tell)
            tell(f"{name}: the log")
            log_cycled = await _cycle_log(connection) and log_cycled
    scrubbed = 0
    if not online and log_cycled and not waiting:
        for shard, arguments in shards.items():
            async with patient(arguments) as connection:
                done = await connection.execute(_SCRUBBED, moments[shard])
                scrubbed += int(done.split()[-1])
    return Scrubbed(scrubbed, waiting, online, log_cycled)


async def _waiting(connection: asyncpg.Connection, read: asyncpg.Connection, moment: datetime) -> int:
    waiting = 0
    for user_id, bucket, sequence, settled in await connection.fetch(_UNSCRUBBED, moment):
        position = Position(Bucket(bucket), Sequence(sequence))
        waiting += not (settled and await all_have(read, user_id, position))
    return waiting


async def _clean(connection: asyncpg.Connection, name: str, *, online: bool, tell: Tell) -> None:
    tables = [row["name"] for row in await connection.fetch(_TABLES)]
    for table in tables:
        tell(f"{name}: {table}")
        if online:
            await connection.execute(f"vacuum (index_cleanup on) {table}")
            await connection.execute(f"reindex table concurrently {table}")
        else:
            await connection.execute(f"vacuum full {table}")
    tell(f"{name}: statistics")
    for table in tables:
        await connection.execute(f"analyze {table}")
    if await _is_superuser(connection):
        await connection.execute("vacuum full pg_catalog.pg_statistic")


async def _cycle_log(connection: asyncpg.Connection) -> bool:
    """Have no file of the log that was written before this; whether the server lets us."""
    if not await _is_superuser(connection):
        return False
    settings = {"wal_recycle": "off", "min_wal_size": "'32MB'"}
    try:
        for setting, value in settings.items():
            await connection.execute(f"alter system set {setting} = {value}")
        await _reload(connection)
        await connection.execute("checkpoint")
        last = await connection.fetchval(_LAST_LOG)
        for _ in range(limits.scrub_log_files_max):  # files made ahead hold old content until they are reached
            if await connection.fetchval(_NEXT_LOG, last):
                break
            await connection.fetchval("select pg_switch_wal()")
        await connection.execute("checkpoint")
    finally:
        for setting in settings:
            await connection.execute(f"alter system reset {setting}")
        await _reload(connection)
    kept: Any = await connection.fetchval("select min(name) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'")
    return bool(kept >= last)


async def _reload(connection: asyncpg.Connection) -> None:
    await connection.fetchval("select pg_reload_conf()")


async def _is_superuser(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select rolsuper from pg_roles where rolname = current_user"))
