"""Names that stopped half-way: settled by the online service's own protocol, as the sweeper would.

Needed seldom (a resumed import, a row that lost a race), so it is the plain way, one name at a time, many at once.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from denizen import limits
from denizen.bulk.imports.people import Name, Person
from denizen.bulk.shards import Shards
from denizen.errors import DenizenError
from denizen.service.login_names import LoginNames
from denizen.service.router import Router
from denizen.service.users import UserService
from denizen.sharding.hashing import bucket_of_login_name
from denizen.users.login_names import LoginName, LoginNameKind

_OLD: Final = """
    select true from denizen.login_names_unsettled
    where bucket = $1 and kind = $2 and value = $3 and since < clock_timestamp() - make_interval(secs => $4)
"""


class Settler:
    """The online service in this process, started when it is first needed."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._router: Router | None = None
        self._names: LoginNames | None = None

    async def settle(self, names: Sequence[Name]) -> None:
        """Finish or undo what is unsettled of these names."""
        await self._settle([LoginName(LoginNameKind(name.kind), name.value.decode()) for name in names])

    async def settle_old(self, names: Sequence[Name], people: Sequence[Person]) -> None:
        """Settle the names of these people that are unsettled for longer than the sweeper's grace."""
        chosen = set(people)
        wanted = [(name.kind, name.value) for name in names if name.person in chosen]
        wanted += [key for person in people for key in person.home]
        found = [LoginName(LoginNameKind(kind), value.decode()) for kind, value in wanted]
        old = [name for name in found if await self._is_old(name)]
        await self._settle(old)

    async def users(self) -> UserService:
        """The user service."""
        names = await self._started()
        if self._router is None:
            raise RuntimeError("the router is started with the names")
        return UserService(self._router, names, self._shards.kinds)

    async def close(self) -> None:
        """Finish and close its connections."""
        if self._names is not None:
            await self._names.drain()
        if self._router is not None:
            await self._router.stop()

    async def _is_old(self, name: LoginName) -> bool:
        bucket = bucket_of_login_name(name, self._shards.hash_seed)
        connection = await self._shards[self._shards.map.shard_of(bucket)].connection()
        return bool(await connection.fetchval(_OLD, bucket, name.kind.value, name.value, limits.sweep_grace_s))

    async def _settle(self, names: Sequence[LoginName]) -> None:
        if not names:
            return
        protocol = await self._started()
        gate = asyncio.Semaphore(limits.import_updates_at_once)

        async def one(name: LoginName) -> None:
            async with gate:
                try:
                    await protocol.settle(name)
                except DenizenError:
                    return  # the sweeper's work, or the next attempt's

        await asyncio.gather(*map(one, names))

    async def _started(self) -> LoginNames:
        if self._names is None:
            self._router = self._shards.router()
            await self._router.start()
            self._names = LoginNames(self._router, self._shards.kinds)
        return self._names
