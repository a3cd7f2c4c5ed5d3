"""A gateway's engine: everything that serves users in one process, started and stopped as one."""

from collections.abc import Mapping
from typing import Any

from denizen import limits
from denizen.bus.hints import Hinter
from denizen.bus.settings import BusSettings
from denizen.events.store import ShardStore
from denizen.events.stores import Places, ShardStores
from denizen.service.erasures import Erasures
from denizen.service.keys import KeyRing
from denizen.service.login_names import LoginNames
from denizen.service.router import Router
from denizen.service.sweeper import Sweeper
from denizen.service.users import UserService
from denizen.sharding.bucket_map import MapSource
from denizen.sharding.ids import ShardId
from denizen.users.login_names import LoginNameKind


class Gateway:
    """Stores, router, login names, sweeper, keys and the user service over them.

    `shards` gives the arguments of `asyncpg.connect` for each shard, or is asked for them whenever the map names one
    that is not known yet. With a `bus`, relays are told at once what was written; without, they find it a moment later.
    """

    def __init__(
        self,
        shards: Mapping[ShardId, dict[str, Any]] | Places,
        source: MapSource,
        hash_seed: int,
        kinds: frozenset[LoginNameKind],
        *,
        lanes: int = limits.lanes_per_shard,
        sweep_grace_s: float = limits.sweep_grace_s,
        bus: BusSettings | None = None,
    ) -> None:
        self._hinter = Hinter(bus) if bus else None

        def open_store(shard: ShardId, arguments: dict[str, Any]) -> ShardStore:
            return ShardStore(shard, arguments, lanes, self._hinter.of(shard) if self._hinter else None)

        self.router = Router(source, ShardStores(shards, open_store), hash_seed)
        self.names = LoginNames(self.router, kinds)
        self.keys = KeyRing(self.router.stores)
        self.users = UserService(self.router, self.names, kinds)
        self.erasures = Erasures(self.router, self.names, self.users)
        self.sweeper = Sweeper(self.router, self.names, sweep_grace_s, self.erasures)
        self.kinds = kinds

    async def start(self) -> None:
        """Open everything, or nothing. Connections to shards are made as they are needed."""
        try:
            await self.router.start()
            await self.keys.start()
            await self.sweeper.start()
            if self._hinter is not None:
                self._hinter.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Finish what was accepted, then close."""
        await self.sweeper.stop()
        await self.names.drain()
        await self.keys.stop()
        await self.router.stop()
        if self._hinter is not None:
            await self._hinter.stop()

    async def __aenter__(self) -> "Gateway":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
