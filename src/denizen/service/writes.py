"""What carries a decided command out on the shards, and says what became of it.

    login names elsewhere are prepared → the events are appended → those names are finished, or what was prepared undone

A command that had its answer before, under the same idempotency key or because an answer was lost, has that one again.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.errors import (
    DenizenError,
    IdempotencyKeyReused,
    LoginNameTaken,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    VersionConflict,
)
from denizen.events.records import Append, Outcome, Result, StoredUser
from denizen.service import idempotency
from denizen.service.context import Context, Written
from denizen.service.login_names import Change, LoginNames, taken
from denizen.service.queries import UserQueries
from denizen.service.recent_users import RecentUsers
from denizen.service.router import Router
from denizen.service.streams import folded_user
from denizen.sharding.ids import Bucket, Position, UserId, bucket_of, uuid_of
from denizen.sharding.ids import Sequence as EventSequence
from denizen.users.events import UserEvent
from denizen.users.evolve import evolve
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import User, login_names

Attempt = Callable[[], tuple[Append, Change]]


class Writes:
    """Writes what was decided. `recent` is told of every user that was written."""

    def __init__(self, router: Router, names: LoginNames, kinds: frozenset[LoginNameKind], recent: RecentUsers) -> None:
        self._router = router
        self._names = names
        self._kinds = kinds
        self._recent = recent
        self._queries = UserQueries(router, kinds)

    async def change(self, stored: StoredUser, events: Sequence[UserEvent], context: Context) -> Written:
        """Append these events to a user who was read as `stored`. `VersionConflict`, `LoginNameTaken`."""
        user = stored.user
        for event in events:
            user = evolve(user, event)
        before: Sequence[LoginName] = ()
        after: Sequence[LoginName] = ()
        if _names_differ(stored.user, user):
            before, after = login_names(stored.user, self._kinds), login_names(user, self._kinds)

        def attempt() -> tuple[Append, Change]:
            change = self._names.change(stored.id, new_command_id(), before, after)
            return append_of(change, stored.version, events, user, context), change

        return await self.carry_out(attempt, context, stored)

    async def carry_out(self, attempt: Attempt, context: Context, before: StoredUser | None) -> Written:
        """Prepare the login names elsewhere, append, finish; again if a name here was only about to become free."""
        for _ in range(limits.optimistic_attempts_max):
            append, change = attempt()
            await self._names.prepare(change, context.actor)
            try:
                return await self._append(append, change, context, before)
            except LoginNameTaken:
                if not await self._names.wait_free(change.gained_here):
                    raise
        raise too_many()

    async def _append(self, append: Append, change: Change, context: Context, before: StoredUser | None) -> Written:
        """Append to the user's stream, then finish or undo what was prepared."""
        try:
            outcome = await self._router.append(append)
        except OutcomeUnknown:
            raise  # the sweeper asks the user's stream
        except DenizenError:
            await self._names.undo(change, context.actor)
            raise
        match outcome.result:
            case Result.DONE:
                self._names.finish(change, context.actor)
            case Result.REPEATED:
                await self._names.settle_all(change)
            case _:
                await self._names.undo(change, context.actor)
        return await self.answer(append, outcome, before)

    async def answer(self, append: Append, outcome: Outcome, before: StoredUser | None) -> Written:
        """The answer to an append; the error that its outcome stands for."""
        match outcome.result:
            case Result.DONE:
                written = done(append, outcome, before)
                self._recent.put(written.user)
                return written
            case Result.REPEATED:
                return await self._repeated(append, outcome)
            case Result.VERSION_CONFLICT:
                raise conflict(append.expected, outcome.version)
            case Result.NAME_TAKEN:
                raise taken(outcome.version)
            case Result.KEY_REUSED:
                raise _key_reused()
            case _:
                raise Unavailable("the command came too late and was not done; try again")

    async def _repeated(self, append: Append, outcome: Outcome) -> Written:
        """It was done before: by this command, whose answer was lost, or by another one under the same key."""
        try:
            user, last = await folded_user(self._router, UserId(outcome.stream), version=outcome.version)
        except DenizenError as error:
            raise OutcomeUnknown("it was done, but cannot be read now; repeat it with the same key") from error
        if user is None or last is None or user.version != outcome.version:
            raise OutcomeUnknown("it was done, but its events cannot be found")
        return Written(user, _position(append.bucket, outcome), replayed=last.command_id != append.command_id)

    async def unless_done(self, bucket: Bucket, context: Context, attempt: Awaitable[Written]) -> Written:
        """Attempt it; what stands in its way may be an earlier request under the same key: then that one's answer."""
        if context.idempotency_key is None:
            return await attempt
        try:
            return await attempt
        except (OutcomeUnknown, Overloaded, IdempotencyKeyReused):
            raise
        except DenizenError:
            earlier = await self.earlier(bucket, context)
            if earlier is None:
                raise
            return earlier

    async def earlier(self, bucket: Bucket, context: Context) -> Written | None:
        """The answer that this idempotency key had before, if any."""
        record = await idempotency.find(self._router, bucket, context)
        if record is None:
            return None
        if record.fingerprint != idempotency.stored_fingerprint(context):
            raise _key_reused()
        user = await self._queries.get_as_of(record.user_id, version=record.version)
        return Written(user, Position(bucket, EventSequence(record.sequence)), replayed=True)

    async def nothing(self, stored: StoredUser) -> Written:
        """The answer to a command that changes nothing."""
        bucket = bucket_of(stored.id)

        async def ask(connection: asyncpg.Connection) -> int:
            head: int = await connection.fetchval("select head from denizen.buckets where bucket = $1", bucket)
            return head

        return Written(stored, Position(bucket, EventSequence(await self._router.read(bucket, ask))))


def append_of(change: Change, version: int, events: Iterable[UserEvent], user: User, context: Context) -> Append:
    """The append of a command's events and state, with what is done to login names in the same transaction."""
    return Append(
        bucket=change.here,
        stream=change.user_id,
        expected=version,
        command_id=change.command_id,
        events=tuple(events),
        actor=context.actor,
        correlation_id=context.correlation_id,
        state=user,
        names=change.local_actions(),
        key=idempotency.stored_key(context),
        fingerprint=idempotency.stored_fingerprint(context),
    )


def done(append: Append, outcome: Outcome, before: StoredUser | None) -> Written:
    """The answer to an append that was done; `before` is the user as it was, None for a new one."""
    if append.state is None:
        raise TypeError("an append to a user's stream carries the state")
    created_at = outcome.recorded_at if before is None else before.created_at
    user = StoredUser(UserId(append.stream), outcome.version, created_at, outcome.recorded_at, append.state)
    return Written(user, _position(append.bucket, outcome))


def new_command_id() -> UUID:
    """An id for one attempt: whoever sees it again sees the same attempt."""
    return uuid_of(random.getrandbits(128))


def conflict(wanted: int, actual: int) -> VersionConflict:
    """Somebody else was faster, or the caller's version is out of date."""
    return VersionConflict(
        f"the user is at version {actual}, not {wanted}: read it again", expected=wanted, actual=actual
    )


def too_many() -> Unavailable:
    """So many were faster, one after the other, that we give up."""
    return Unavailable("the user or its login names are changed by too many at once; try again")


def _names_differ(before: User, after: User) -> bool:
    return before.email != after.email or before.username != after.username or before.phone != after.phone


def _position(bucket: Bucket, outcome: Outcome) -> Position:
    return Position(bucket, EventSequence(outcome.sequence))


def _key_reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("this idempotency key was used before for another request; use a new one")
