"""The read database: how to connect to it, and its schema.

It holds nothing that the shards' events do not give again, so its commits need not wait for the disk: a crash may take
the last moments back, rows together with their checkpoints, and the projector goes on from there.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from denizen import limits
from denizen.errors import BadDeployment
from denizen.postgres.migrations import Migration, known_migrations, migrate
from denizen.projections.tables import SCHEMA

DATABASE: Final = "denizen_read"
_JSONB_VERSION: Final = b"\x01"  # what PostgreSQL puts before the text of a binary jsonb

_CLAIM: Final = """
    insert into denizen_read.owner as o (one, deployment) values (true, $1)
    on conflict (one) do update set deployment = o.deployment returning deployment
"""
WRITER_SETTINGS: Final = {
    "application_name": "denizen projector",
    "timezone": "UTC",
    "jit": "off",
    "synchronous_commit": "off",
    "lock_timeout": str(limits.projector_lock_ms),
    "statement_timeout": str(limits.projector_statement_ms),
    "idle_in_transaction_session_timeout": str(limits.projector_idle_ms),
    # Plans are made once, perhaps while the tables are still empty.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


async def migrate_read(connect_args: Mapping[str, Any]) -> list[Migration]:
    """Bring the read database to this program's schema; see `postgres.migrations.migrate`."""
    return await migrate(connect_args, migrations=known_migrations("denizen.projections"), schema=SCHEMA)


async def claim(connect_args: Mapping[str, Any], deployment: UUID) -> None:
    """Write down whose read models these are; `BadDeployment` if they are another deployment's."""
    connection = await connect_writer(connect_args)
    try:
        owner = await connection.fetchval(_CLAIM, deployment)
    finally:
        await connection.close()
    if owner != deployment:
        raise BadDeployment(f"the read database holds the read models of deployment {owner}: give an empty one")


async def connect_writer(connect_args: Mapping[str, Any], **settings: str) -> asyncpg.Connection:
    """A connection of a projector or a replay; `settings` over its usual ones."""
    all_settings = WRITER_SETTINGS | settings | connect_args.get("server_settings", {})
    connection = await asyncpg.connect(
        **{**connect_args, "server_settings": all_settings, "timeout": limits.shard_connect_s}
    )
    await use_json(connection)
    return connection


async def use_json(connection: asyncpg.Connection) -> None:
    """Read and write jsonb as Python values."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=encode_jsonb, decoder=_decode_jsonb, format="binary"
    )


def encode_jsonb(value: Any) -> bytes:
    """A value as binary jsonb."""
    return _JSONB_VERSION + msgspec.json.encode(value)


def _decode_jsonb(data: bytes) -> Any:
    return msgspec.json.decode(data[1:])
