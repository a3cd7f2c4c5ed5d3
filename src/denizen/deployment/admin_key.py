"""The first API key of a deployment, with the scope `admin`: made at its birth, shown once."""

from denizen.deployment.layout import Deployment


async def create_admin_key(deployment: Deployment) -> str:
    """Make an admin key on the running first shard; return its secret, which is stored nowhere."""
    from denizen.events.store import ShardStore  # only a birth needs them
    from denizen.service.keys import KeyRing

    shard = next(iter(deployment.shards.values()))
    store = ShardStore(shard.id, shard.connect_args, lanes=1)
    await store.start()
    try:
        _, secret = await KeyRing(store).create("admin", ["admin"])
    finally:
        await store.stop()
    return secret
