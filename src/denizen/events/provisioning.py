"""Making an empty, migrated server a shard: who it is, and the rows of the buckets it owns."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from denizen.errors import BadDeployment
from denizen.sharding.ids import Bucket, ShardId


async def provision(
    connection: asyncpg.Connection, deployment_id: UUID, shard_id: ShardId, buckets: Sequence[Bucket]
) -> None:
    """Write the shard's name and its buckets, open at epoch 1. Repeating it changes nothing.

    `BadDeployment` if the server is a shard already: of another deployment, or under another id.
    """
    async with connection.transaction():
        await connection.execute(
            "insert into denizen.shard (deployment_id, shard_id) values ($1, $2) on conflict do nothing",
            deployment_id,
            shard_id,
        )
        await check_identity(connection, deployment_id, shard_id)
        await connection.execute(
            "insert into denizen.buckets (bucket, epoch, state) select b, 1, 'open' from unnest($1::smallint[]) as b"
            " on conflict do nothing",
            buckets,
        )


async def is_a_shard(connection: asyncpg.Connection) -> bool:
    """Whether the server was made a shard, of whomever."""
    if not await connection.fetchval("select to_regclass('denizen.shard') is not null"):
        return False
    return bool(await connection.fetchval("select exists (select from denizen.shard)"))


async def check_identity(connection: asyncpg.Connection, deployment_id: UUID, shard_id: ShardId) -> None:
    """`BadDeployment` unless the server says that it is this shard of this deployment."""
    row = await connection.fetchrow("select deployment_id, shard_id from denizen.shard")
    if row is None:
        raise BadDeployment(f"the server of shard {shard_id} was never made a shard; run `denizen up` once")
    if row["deployment_id"] != deployment_id or row["shard_id"] != shard_id:
        raise BadDeployment(
            f"the server given for shard {shard_id} is shard {row['shard_id']} of deployment {row['deployment_id']}; "
            "check the shards' addresses: nothing was changed"
        )
