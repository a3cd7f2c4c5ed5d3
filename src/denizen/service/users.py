"""Commands on users: read, decide, and have it carried out; over whichever shards it takes.

A command on an existing user reads its state, decides in pure code, and appends with the version it read; if somebody
else was faster it starts again, unless the caller insisted on a version. If this gateway itself wrote the user a moment
ago, it decides on what it wrote, and reads only if that is refused. What was decided is carried out by writes.py.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from uuid import UUID

from msgspec.structs import replace

from denizen import limits
from denizen.errors import DenizenError, LoginNameTaken, VersionConflict, WrongStatus
from denizen.service.context import Context, Written
from denizen.service.login_names import LoginNames
from denizen.service.queries import UserQueries
from denizen.service.recent_users import RecentUsers
from denizen.service.registrations import Registrations
from denizen.service.router import Router
from denizen.service.writes import Writes, conflict, too_many
from denizen.sharding.ids import UserId, bucket_of
from denizen.users import decide
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import UserEvent
from denizen.users.login_names import LoginNameKind
from denizen.users.rejections import Rejected
from denizen.users.state import User, login_names

Decide = Callable[[User], Sequence[UserEvent]]


class UserService(UserQueries):
    """Users over all shards. Every method raises only `DenizenError` and, for input that a rule forbids, `Rejected`."""

    def __init__(self, router: Router, names: LoginNames, kinds: frozenset[LoginNameKind]) -> None:
        super().__init__(router, kinds)
        self._recent = RecentUsers()
        self._writes = Writes(router, names, kinds, self._recent)
        self._registrations = Registrations(router, names, kinds, self._writes)

    async def register(self, registration: Registration, context: Context) -> Written:
        """Create a user. `LoginNameTaken`, `IdempotencyKeyReused`, `OutcomeUnknown`, or it is durable."""
        return await self._registrations.one(registration, context)

    async def register_many(
        self, registrations: Sequence[Registration], contexts: Sequence[Context]
    ) -> list[Written | DenizenError | Rejected]:
        """Create many users; a result for each, in order. One that fails does not disturb the others."""
        return await self._registrations.many(registrations, contexts)

    async def change(
        self, user_id: UUID, patch: UserPatch, *, if_version: int | None = None, context: Context
    ) -> Written:
        """Apply a merge patch; nothing is written if it changes nothing."""
        return await self._command(user_id, lambda user: decide.change(user, patch, self._kinds), if_version, context)

    async def suspend(
        self, user_id: UUID, reason: str | None = None, *, if_version: int | None = None, context: Context
    ) -> Written:
        """Suspend an active user; `WrongStatus` if it is not active."""
        return await self._command(user_id, lambda user: decide.suspend(user, reason), if_version, context)

    async def reactivate(
        self, user_id: UUID, reason: str | None = None, *, if_version: int | None = None, context: Context
    ) -> Written:
        """End a suspension; `WrongStatus` if the user is not suspended."""
        return await self._command(user_id, lambda user: decide.reactivate(user, reason), if_version, context)

    async def delete(
        self, user_id: UUID, reason: str | None = None, *, if_version: int | None = None, context: Context
    ) -> Written:
        """Delete a user and free its login names; the history remains."""
        return await self._command(user_id, lambda user: decide.delete(user, reason), if_version, context)

    async def set_password(
        self, user_id: UUID, password_hash: str | None, *, if_version: int | None = None, context: Context
    ) -> Written:
        """Replace the password's hash; None: no password any more."""
        return await self._command(user_id, lambda user: decide.set_password(user, password_hash), if_version, context)

    async def erase(self, user_id: UUID, *, context: Context) -> Written:
        """Destroy a user's personal data for good, in its history too; deleted or not. Doing it again changes nothing.

        When this returns, nothing of the user can be read on its shard; login names in other buckets follow at once
        (see erasures.py). It needs no idempotency key, and no version: an erasure is never out of date.
        """
        context = replace(context, idempotency_key=None, fingerprint=None)

        def decision(user: User) -> Sequence[UserEvent]:
            return decide.erase(user, len(login_names(user, self._kinds)))

        return await self._decide_and_append(UserId(user_id), decision, None, context, even_gone=True)

    async def _command(self, user_id: UUID, decision: Decide, if_version: int | None, context: Context) -> Written:
        if context.idempotency_key is None:
            return await self._change_user(UserId(user_id), decision, if_version, context)
        bucket = bucket_of(user_id)
        earlier = await self._writes.earlier(bucket, context)
        if earlier is not None:
            return earlier
        return await self._writes.unless_done(
            bucket, context, self._change_user(UserId(user_id), decision, if_version, context)
        )

    async def _change_user(
        self, user_id: UserId, decision: Decide, if_version: int | None, context: Context
    ) -> Written:
        recent = self._recent.get(user_id)
        if recent is not None and if_version in (None, recent.version):
            try:
                if events := decision(recent.user):
                    return await self._writes.change(recent, events, context)
            except (Rejected, VersionConflict, LoginNameTaken):
                self._recent.drop(user_id)  # it may be out of date, and so the refusal
        return await self._decide_and_append(user_id, decision, if_version, context)

    async def _decide_and_append(
        self, user_id: UserId, decision: Decide, if_version: int | None, context: Context, *, even_gone: bool = False
    ) -> Written:
        attempts = limits.erasure_attempts_max if even_gone else limits.optimistic_attempts_max
        for attempt in range(attempts):
            stored = await (self.get_gone_or_not(user_id) if even_gone else self.get(user_id))
            if if_version is not None and stored.version != if_version:
                raise conflict(if_version, stored.version)
            try:
                events = decision(stored.user)
            except Rejected as rejected:
                raise _translated(rejected) from rejected
            if not events:
                return await self._writes.nothing(stored)
            try:
                return await self._writes.change(stored, events, context)
            except VersionConflict:
                if if_version is not None:
                    raise
            tries = min(attempt, limits.optimistic_attempts_max)
            await asyncio.sleep(random.random() * limits.optimistic_pause_s * tries)  # noqa: S311 - no secret
        raise too_many()


def _translated(rejected: Rejected) -> DenizenError | Rejected:
    return WrongStatus(rejected.detail) if rejected.code == "wrong_status" else rejected
