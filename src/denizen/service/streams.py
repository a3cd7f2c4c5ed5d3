"""Users from their streams: the truth behind the state rows, for as-of reads and wherever a row is missing."""

from datetime import datetime
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.events.reading import END_OF_TIME, VERSION_MAX, read_stream
from denizen.events.records import RecordedEvent, StoredUser
from denizen.service.router import Router
from denizen.sharding.ids import UserId, bucket_of
from denizen.users.evolve import evolve
from denizen.users.state import User


async def current_user(router: Router, user_id: UserId) -> StoredUser | None:
    """The user as it is now, deleted or not: its row or, should that be missing, the fold of its stream."""
    stored = await router.user(user_id)
    return stored or (await folded_user(router, user_id))[0]


async def folded_user(
    router: Router, user_id: UserId, *, version: int = VERSION_MAX, time: datetime = END_OF_TIME
) -> tuple[StoredUser | None, RecordedEvent | None]:
    """The user as it was at a version or a time, and the last event until then; None and None if it was not there yet.

    At a time: before the first event that was recorded later, so that a clock set back never leaves one out.
    """
    user: User | None = None
    created_at: datetime | None = None
    last: RecordedEvent | None = None
    while True:
        after = 0 if last is None else last.version
        page = await user_events(
            router, user_id, after_version=after, to_version=version, to_time=time, limit=limits.page_events_max
        )
        for event in page:
            if event.version != (0 if last is None else last.version) + 1:
                page = []
                break
            created_at = created_at or event.recorded_at
            user, last = evolve(user, event.event), event  # type: ignore[arg-type]  # a user's stream holds user events
        if len(page) < limits.page_events_max:
            break
    if user is None or last is None or created_at is None:
        return None, None
    return StoredUser(user_id, last.version, created_at, last.recorded_at, user), last


async def user_events(
    router: Router,
    user_id: UUID,
    *,
    after_version: int = 0,
    to_version: int = VERSION_MAX,
    to_time: datetime = END_OF_TIME,
    limit: int,
) -> list[RecordedEvent]:
    """The events of a user in order, at most `limit`."""

    async def ask(connection: asyncpg.Connection) -> list[RecordedEvent]:
        return await read_stream(
            connection, user_id, after_version=after_version, to_version=to_version, to_time=to_time, limit=limit
        )

    return await router.read(bucket_of(user_id), ask)
