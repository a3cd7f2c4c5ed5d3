"""Erasures: what follows from the event that erases a user, and the certificate of it.

    UserErased, in one transaction: the key of the history and the state row are destroyed, names here are released
    → names in other buckets are released, and destroyed with that → settled
    → what PostgreSQL keeps of old rows in its files is cleaned → scrubbed (deployment/scrubbing.py)

The first step is the point of no return, and atomic. Everything after it is found again after a crash: `erasures`, a
table on the user's own shard, has a row from that transaction on, and every gateway's sweeper goes on with those that
are not settled. Steps are idempotent, and compare what they expect, so any number may work on one erasure.
"""

import asyncio
import heapq
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog
from msgspec import Struct

from denizen import limits
from denizen.errors import DenizenError, ErasureNotFound
from denizen.events.store import ShardStore
from denizen.service.context import Context
from denizen.service.login_names import LoginNames
from denizen.service.router import Router
from denizen.service.streams import user_events
from denizen.service.users import UserService
from denizen.sharding.ids import Position, UserId, bucket_of
from denizen.users.events import UserErased
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import Status

_log = structlog.get_logger()

_OF_USER = """
    select u.kind, u.value from denizen.login_names_unsettled u
    join denizen.login_names l on l.bucket = u.bucket and l.kind = u.kind and l.value = u.value
    join denizen.buckets b on b.bucket = u.bucket and b.state in ('open', 'fenced')
    where l.user_id = $1
"""
_SETTLED = """
    update denizen.erasures set settled_at = clock_timestamp() where bucket = $1 and user_id = $2 and settled_at is null
"""
_ROW = "select settled_at, scrubbed_at from denizen.erasures where bucket = $1 and user_id = $2"
_WAITING = """
    select x.user_id from denizen.erasures x join denizen.buckets b on b.bucket = x.bucket and b.state = 'open'
    where x.settled_at is null order by x.erased_at limit $1
"""
_LIST = """
    select x.erased_at, x.user_id, x.settled_at, x.scrubbed_at from denizen.erasures x
    join denizen.buckets b on b.bucket = x.bucket and b.state in ('open', 'fenced')
    where $1::timestamptz is null or (x.erased_at, x.user_id) < ($1, $2)
    order by x.erased_at desc, x.user_id desc limit $3
"""


class Erasure(Struct, frozen=True):
    """How far an erasure is. `settled_at`: no login name is left; `scrubbed_at`: no old copy in files."""

    user_id: UUID
    erased_at: datetime
    settled_at: datetime | None
    scrubbed_at: datetime | None


class Certificate(Struct, frozen=True):
    """What was destroyed, when and on whose word. Nothing in it is personal.

    `events`: so many events of the history cannot be read any more, versions 1 to that number; `login_names`: so many
    were released. `position` is that of the event itself: what has it, has the erasure.
    """

    user_id: UUID
    erased_at: datetime
    actor: str
    correlation_id: UUID | None
    position: Position
    events: int
    login_names: int
    settled_at: datetime | None
    scrubbed_at: datetime | None


class Erasures:
    """Erases users, finishes erasures, and tells about them. Raises only `DenizenError`."""

    def __init__(self, router: Router, names: LoginNames, users: UserService) -> None:
        self._router = router
        self._names = names
        self._users = users

    async def erase(self, user_id: UUID, context: Context) -> Certificate:
        """Erase a user; again, if it was done: then the certificate of then. `UserNotFound`.

        The certificate may say that login names elsewhere are still to come: a sweeper releases them.
        """
        await self._users.erase(user_id, context=context)
        await self._names.drain()
        with suppress(DenizenError):  # a shard is away: the sweeper's work
            await self.settle(user_id)
        return await self.certificate(user_id)

    async def settle(self, user_id: UUID) -> None:
        """Release what login names are left to an erased user, whatever change they were in, and note that."""
        bucket = bucket_of(user_id)
        for _ in range(limits.optimistic_attempts_max):
            names = await self._left(user_id)
            if not names:
                await self._router.read(bucket, lambda connection: connection.execute(_SETTLED, bucket, user_id))
                return
            await asyncio.gather(*map(self._names.settle, names))

    async def sweep(self) -> int:
        """Go on with the erasures that are not settled; how many there were. What cannot be done now is left."""
        done = 0
        for store in list(self._router.stores.values()):
            try:
                for (user_id,) in await self._of(store, _WAITING, limits.sweep_names_max):
                    done += 1
                    await self.settle(user_id)
            except DenizenError as error:  # the other shards are swept none the less
                _log.info("erasures_not_swept", shard=store.shard_id, error=error.code)
        return done

    async def certificate(self, user_id: UUID) -> Certificate:
        """The certificate of an erasure. `UserNotFound`; `ErasureNotFound` if the user was not erased."""
        stored = await self._users.get_gone_or_not(user_id)
        if stored.user.status is not Status.ERASED:
            raise ErasureNotFound("this user was not erased", id=str(user_id))
        bucket = bucket_of(user_id)
        row = await self._router.read(bucket, lambda connection: connection.fetchrow(_ROW, bucket, user_id))
        (last,) = await user_events(self._router, user_id, after_version=stored.version - 1, limit=1)
        names = last.event.login_names if isinstance(last.event, UserErased) else 0
        settled_at, scrubbed_at = row or (None, None)
        return Certificate(
            UserId(user_id),
            last.recorded_at,
            last.actor,
            last.correlation_id,
            last.position,
            last.version - 1,
            names,
            settled_at,
            scrubbed_at,
        )

    async def newest(self, *, before: tuple[datetime, UUID] | None = None, limit: int) -> list[Erasure]:
        """The newest first, before that moment and user."""
        moment, user_id = before or (None, None)
        pages = await asyncio.gather(
            *(self._of(store, _LIST, moment, user_id, limit) for store in self._router.stores.values())
        )
        found = [Erasure(row[1], row[0], row[2], row[3]) for page in pages for row in page]
        return heapq.nlargest(limit, found, key=lambda each: (each.erased_at, each.user_id))

    async def _left(self, user_id: UUID) -> list[LoginName]:
        rows = await self._everywhere(_OF_USER, user_id)
        return [LoginName(LoginNameKind(kind), value) for kind, value in rows]

    async def _everywhere(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        pages = await asyncio.gather(*(self._of(store, query, *arguments) for store in self._router.stores.values()))
        return [row for page in pages for row in page]

    async def _of(self, store: ShardStore, query: str, *arguments: object) -> list[asyncpg.Record]:
        async def ask(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
            return rows

        return await store.read(ask)
