"""The keyring of a deployment, for operators: what it holds, a new key, everything under it, the old one dropped.

    rotate: a new key in the file → every process uses it, a second later → each shard's secrets, batch by batch
    drop:   nothing under the key on any shard, and no bucket on its way → out of the file

Each step may be the last before a crash; `rewrap` goes on with a rotation. While a bucket moves, a copy of a secret
under the old key may be between two servers: no key is dropped then.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.deployment.layout import Deployment, write_private
from denizen.errors import BadDeployment
from denizen.events.keyring import WrappingKey, encode_keyring, read_keyring
from denizen.events.rewrapping import count_by_key, rewrap_batch
from denizen.sharding.ids import ShardId

Tell = Callable[[int], None]  # so many secrets were wrapped anew until now

_MOVING: Final = """
    select exists (select from denizen.bucket_moves
                   where state in ('begun', 'fenced', 'clearing', 'copying', 'verified'))
"""


class KeyUse(Struct, frozen=True):
    """A wrapping key, and how many secrets it holds over all shards."""

    id: str
    created_at: datetime
    newest: bool
    secrets: int


async def key_uses(deployment: Deployment) -> list[KeyUse]:
    """Every key, the oldest first. It reads every event."""
    keys = read_keyring(deployment.keyring_path)
    totals: dict[str, int] = {}
    for shard, place in _places(deployment).items():
        async with patient(place, f"shard {shard}") as connection:
            for key, count in (await count_by_key(connection)).items():
                totals[key] = totals.get(key, 0) + count
    strange = totals.keys() - {key.id for key in keys}
    if strange:
        raise BadDeployment(f"secrets are under keys that the keyring has not: {', '.join(sorted(strange))}")
    return [KeyUse(key.id, key.created_at, key is keys[-1], totals.get(key.id, 0)) for key in keys]


def add_key(deployment: Deployment) -> WrappingKey:
    """A new key, which wraps from now on; running processes see it within a second or two."""
    with _alone(deployment):
        key = WrappingKey.new()
        _write(deployment, (*read_keyring(deployment.keyring_path), key))
    return key


async def rewrap(deployment: Deployment, tell: Tell = lambda _: None) -> int:
    """Wrap every secret under the newest key; how many. Safe to interrupt, to repeat, to run twice at once."""
    await asyncio.sleep(limits.keyring_look_s * 2)  # until every process has seen the newest key
    deployment.use_keyring()
    done = 0
    for shard, place in _places(deployment).items():
        async with patient(place, f"shard {shard}") as connection:
            for (bucket,) in await connection.fetch("select bucket from denizen.buckets order by bucket"):
                done = await _rewrap_bucket(connection, bucket, done, tell)
    return done


async def _rewrap_bucket(connection: asyncpg.Connection, bucket: int, done: int, tell: Tell) -> int:
    after = 0
    while True:
        began = time.monotonic()
        count, after = await rewrap_batch(connection, bucket, after)
        if not count:
            return done
        done += count
        tell(done)
        await asyncio.sleep(time.monotonic() - began)  # half of the time is others'


async def drop_key(deployment: Deployment, key_id: str) -> None:
    """Forget a key for good. `BadDeployment` while anything is, or may be, under it."""
    with _alone(deployment):
        keys = read_keyring(deployment.keyring_path)
        if key_id not in {key.id for key in keys}:
            raise BadDeployment(f"the keyring has no key {key_id}")
        if keys[-1].id == key_id:
            raise BadDeployment("this is the key that wraps: `denizen keyring rotate` makes a newer one")
        if (datetime.now(UTC) - keys[-1].created_at).total_seconds() < limits.keyring_drop_after_s:
            raise BadDeployment(f"the newest key is younger than {limits.keyring_drop_after_s:g} s: try again then")
        places = _places(deployment)
        for shard, place in places.items():
            async with patient(place, f"shard {shard}") as connection:
                if await connection.fetchval(_MOVING):
                    raise BadDeployment("a bucket moves, and may carry secrets under this key: try again afterwards")
                if (left := (await count_by_key(connection)).get(key_id, 0)) > 0:
                    raise BadDeployment(f"{left:,} secrets are under this key: `denizen keyring rewrap` first")
        if _places(deployment).keys() != places.keys():
            raise BadDeployment("shards joined or left meanwhile: try again")
        _write(deployment, [key for key in keys if key.id != key_id])


def _write(deployment: Deployment, keys: Sequence[WrappingKey]) -> None:
    write_private(deployment.keyring_path, encode_keyring(keys))


@contextmanager
def _alone(deployment: Deployment) -> Iterator[None]:
    """Two commands must not change the file at once."""
    handle = os.open(deployment.keyring_path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _places(deployment: Deployment) -> dict[ShardId, dict[str, Any]]:
    """Where secrets can be: a shard that is still joining has none."""
    found = Deployment.load(deployment.directory)
    return {shard: server.connect_args for shard, server in found.shards.items() if not found.joins(shard)}


@asynccontextmanager
async def patient(arguments: dict[str, Any], name: str = "a server") -> AsyncIterator[asyncpg.Connection]:
    """A connection without any limit of time but that of its making."""
    try:
        settings = {"application_name": "denizen", "statement_timeout": "0", "lock_timeout": "0"}
        connection = await asyncpg.connect(
            **arguments | {"server_settings": settings, "timeout": limits.shard_connect_s}
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise BadDeployment(f"{name} does not answer: {error or type(error).__name__}") from error
    try:
        yield connection
    finally:
        connection.terminate()
