"""The first API key of a deployment, with the scope `admin`: made at its birth, shown once."""

from denizen.deployment.layout import Deployment


async def create_admin_key(deployment: Deployment) -> str:
    """Make an admin key on the running shards; return its secret, which is stored nowhere."""
    from denizen.events.stores import ShardStores  # only a birth needs them
    from denizen.service.keys import KeyRing

    async with ShardStores(deployment.places) as stores:
        await stores.open(deployment.shard_ids)
        _, secret = await KeyRing(stores).create("admin", ["admin"])
    return secret
