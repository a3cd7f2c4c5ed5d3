"""Connections to a deployment's shards for bulk work: one each, made when needed, made again when broken."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.deployment.control_access import map_source_of
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.lanes import BROKEN
from denizen.events.provisioning import check_identity
from denizen.events.store import ShardStore, connect
from denizen.events.stores import ShardStores
from denizen.service.router import Router
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import ShardId
from denizen.users.login_names import LoginNameKind

TRANSACTION_TIMEOUT_FROM: Final = 17  # the release of PostgreSQL that knows the setting


class Shard:
    """One shard's connection. `settings` are laid over those of every session."""

    def __init__(self, shard_id: ShardId, connect_args: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        self.id = shard_id
        self._arguments = dict(connect_args)
        self._settings = settings
        self._connection: asyncpg.Connection | None = None

    async def connection(self) -> asyncpg.Connection:
        """The connection, made now if there is none; errors as asyncpg gives them."""
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._arguments)
            settings = {
                name: value
                for name, value in self._settings.items()
                if name != "transaction_timeout" or connection.get_server_version().major >= TRANSACTION_TIMEOUT_FROM
            }
            for name, value in settings.items():
                await connection.execute("select set_config($1, $2, false)", name, value)
            self._connection = connection
        return self._connection

    async def drop(self) -> None:
        """Give the connection up, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Close the connection in order."""
        if self._connection is not None:
            try:
                await self._connection.close(timeout=limits.close_deadline_s)
            except (*BROKEN, asyncpg.PostgresError):
                self._connection.terminate()
            self._connection = None


class Shards:
    """The shards that the newest map names, and that map."""

    def __init__(self, deployment: Deployment, settings: Mapping[str, str]) -> None:
        deployment.use_keyring()
        self.deployment = deployment
        self.hash_seed = deployment.hash_seed
        self.kinds = kinds_of(deployment)
        self.source = map_source_of(deployment)
        self._settings = settings
        self._shards: dict[ShardId, Shard] = {}
        self._map: BucketMap | None = None

    @property
    def map(self) -> BucketMap:
        """The map in use; `start` loads it."""
        if self._map is None:
            raise BadDeployment("the bucket map is not loaded")
        return self._map

    def __getitem__(self, shard_id: ShardId) -> Shard:
        known = self._shards.get(shard_id)
        if known is None:
            places = self.deployment.places()
            if shard_id not in places:
                raise BadDeployment(f"shard {shard_id} is not known on this machine")
            known = self._shards[shard_id] = Shard(shard_id, places[shard_id], self._settings)
        return known

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter([self[shard_id] for shard_id in self.map.shards])

    async def start(self) -> None:
        """Load the map and see that every shard answers and is this deployment's. Raises `BadDeployment`."""
        await self.refresh()
        for shard in self:
            await self._meet(shard)

    async def _meet(self, shard: Shard) -> None:
        patience = Patience(shard.id, limits.bulk_start_wait_s)
        while True:
            try:
                return await check_identity(await shard.connection(), self.deployment.id, shard.id)
            except BROKEN as error:  # once it served, a broken connection is made again: here as well
                await shard.drop()
                await patience.wait(error)
            except asyncpg.PostgresError as error:
                raise BadDeployment(f"shard {shard.id} refuses: {error}") from error

    async def refresh(self) -> None:
        """Load the newest map."""
        self._map = await self.source.current()

    def router(self) -> Router:
        """A router of the online service over the same shards, with connections of its own; to be started."""
        stores = ShardStores(self.deployment.places, lambda shard, where: ShardStore(shard, where, 1))
        return Router(self.source, stores, self.hash_seed)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(shard.close() for shard in self._shards.values()))


class Patience:
    """How long a shard may be away: `wait` sleeps a little longer each time, and gives up with `BadDeployment`."""

    def __init__(self, shard_id: ShardId, seconds: float = limits.import_shard_wait_s) -> None:
        self._shard_id = shard_id
        self._deadline = time.monotonic() + seconds
        self._pause = limits.reconnect_pause_min_s

    async def wait(self, cause: BaseException) -> None:
        """Sleep before the next attempt."""
        if time.monotonic() > self._deadline:
            raise BadDeployment(
                f"shard {self._shard_id} does not answer ({_reason(cause)}): "
                "start the deployment with `denizen up`, see `denizen status`"
            ) from cause
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, limits.reconnect_pause_max_s)


def _reason(cause: BaseException) -> str:
    """Why a shard does not answer, for people."""
    if isinstance(cause, (FileNotFoundError, ConnectionRefusedError)):
        return "no server listens there"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(cause) or type(cause).__name__


def kinds_of(deployment: Deployment) -> frozenset[LoginNameKind]:
    """The kinds of login names that this deployment uses."""
    return frozenset(LoginNameKind.from_word(word) for word in deployment.login_names)
