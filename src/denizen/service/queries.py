"""Queries on users, over all shards: by id, by login name, as of a moment, in pages.

The state row answers, and it is current, for it is written with the events. Should it be missing, the stream answers.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.errors import DenizenError, Unavailable, UserDeleted, UserErased, UserNotFound
from denizen.events.reading import END_OF_TIME, VERSION_MAX
from denizen.events.records import RecordedEvent, StoredUser
from denizen.service.pages import Joined, Key, joined, read_shard_page
from denizen.service.router import Router
from denizen.service.streams import current_user, folded_user, user_events
from denizen.sharding.ids import UserId
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import Status, login_names


class UserQueries:
    """What can be asked. Every method raises only `DenizenError`."""

    def __init__(self, router: Router, kinds: frozenset[LoginNameKind]) -> None:
        self._router = router
        self._kinds = kinds

    @property
    def kinds(self) -> frozenset[LoginNameKind]:
        """The kinds of login names that this deployment uses."""
        return self._kinds

    async def get_gone_or_not(self, user_id: UUID) -> StoredUser:
        """The user as it is now, deleted, erased or not. `UserNotFound` if there never was one."""
        stored = await current_user(self._router, UserId(user_id))
        if stored is None:
            raise UserNotFound("no user has this id", id=str(user_id))
        return stored

    async def get(self, user_id: UUID) -> StoredUser:
        """The user as it is now. `UserNotFound`, `UserDeleted`, `UserErased`."""
        stored = await self.get_gone_or_not(user_id)
        if stored.user.status is Status.ERASED:
            raise _erased(stored)
        if stored.user.status is Status.DELETED:
            raise UserDeleted("this user was deleted; its history remains", id=str(user_id), version=stored.version)
        return stored

    async def get_as_of(self, user_id: UUID, *, version: int | None = None, time: datetime | None = None) -> StoredUser:
        """The user as it was at a version or a time; deleted or not.

        `UserNotFound` if it was not there yet; `UserErased` if nobody can know any more.
        """
        to_version = VERSION_MAX if version is None else version
        stored, _ = await folded_user(self._router, UserId(user_id), version=to_version, time=time or END_OF_TIME)
        if stored is None or (version is not None and stored.version != version):
            raise UserNotFound("there is no such user at that version or time", id=str(user_id))
        if stored.user.status is Status.ERASED:
            raise _erased(stored)
        return stored

    async def get_many(self, ids: Sequence[UUID]) -> list[StoredUser | DenizenError]:
        """Many users; a result for each, in order."""
        results = await asyncio.gather(*map(self.get, ids), return_exceptions=True)
        return [expected(result) for result in results]

    async def find(self, name: LoginName) -> StoredUser:
        """The user with this login name. `UserNotFound`."""
        for _ in range(limits.optimistic_attempts_max):
            record = await self._router.name(name)
            stored = None if record is None else await current_user(self._router, record.user_id)
            if stored is not None and name in login_names(stored.user, self._kinds):
                return stored
            if record is None or record.state != "held":
                break  # free, or about to change hands
            # Else it changed hands between the two looks.
        raise UserNotFound(f"no user has this {name.kind.word}", kind=name.kind.word)

    async def history(
        self, user_id: UUID, *, after_version: int = 0, limit: int = limits.page_events_max
    ) -> list[RecordedEvent]:
        """The user's events in order, deleted or not. `UserNotFound` if there never was one."""
        events = await user_events(self._router, user_id, after_version=after_version, limit=limit)
        if not events and not await user_events(self._router, user_id, limit=1):
            raise UserNotFound("no user has this id", id=str(user_id))
        return events

    async def list_users(
        self, *, after: tuple[int, UUID] | None = None, limit: int = limits.page_users_default
    ) -> list[StoredUser]:
        """Users over all shards in the order of (bucket, id), which no change and no move disturbs; no deleted ones."""
        place: Key = after or (-1, UUID(int=0))
        users: list[StoredUser] = []
        while len(users) < limit:
            page = await self._page(place, limit - len(users))
            users += page.users
            if page.end is None:
                break
            place = page.end
        return users

    async def _page(self, after: Key, limit: int) -> Joined:
        """A part of the list, from all shards; `Unavailable` if it cannot be told for long who serves some bucket."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limits.list_settle_s
        while True:
            stores = dict(self._router.stores)
            pages = await asyncio.gather(
                *(store.read(lambda connection: read_shard_page(connection, after, limit)) for store in stores.values())
            )
            page = joined(dict(zip(stores, pages, strict=True)), after, limit)
            if page is not None:
                return page
            if loop.time() > until:
                raise Unavailable("some buckets are moving, and take too long; try again")
            await asyncio.sleep(limits.list_retry_s)

    async def ready(self) -> dict[str, Any]:
        """Whether each shard answers."""

        async def check(connection: asyncpg.Connection) -> bool:
            return bool(await connection.fetchval("select true"))

        names = list(self._router.stores)
        answers = await asyncio.gather(
            *(store.read(check) for store in self._router.stores.values()), return_exceptions=True
        )
        return {name: answer is True for name, answer in zip(names, answers, strict=True)}


def _erased(stored: StoredUser) -> UserErased:
    return UserErased("this user was erased: its personal data are destroyed", id=str(stored.id))


def expected(result: Any) -> Any:
    """A result, or an error that a caller may see, as a value; anything else is a defect and is raised."""
    if isinstance(result, BaseException) and not isinstance(result, DenizenError):
        raise result
    return result
