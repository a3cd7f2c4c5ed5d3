"""Commands on users: read, decide, append; over whichever shards it takes.

A command on an existing user reads its state, decides in pure code, and appends with the version it read; if somebody
else was faster it starts again, unless the caller insisted on a version. If this gateway itself wrote the user a moment
ago, it decides on what it wrote, and reads only if that is refused. A registration mints its id into the bucket of the
first login name, so that the commonest write is one transaction on one shard.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from denizen import limits
from denizen.errors import (
    DenizenError,
    IdempotencyKeyReused,
    Invalid,
    LoginNameTaken,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    VersionConflict,
    WrongStatus,
)
from denizen.events.records import NO_STREAM, Append, Outcome, Result, StoredUser
from denizen.service import idempotency
from denizen.service.context import Context, Written
from denizen.service.login_names import Change, LoginNames, taken
from denizen.service.queries import UserQueries, expected
from denizen.service.recent_users import RecentUsers
from denizen.service.router import Router
from denizen.service.streams import folded_user
from denizen.sharding.ids import Bucket, Position, UserId, bucket_of, mint_user_id, uuid_of
from denizen.sharding.ids import Sequence as EventSequence
from denizen.users import decide
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import UserEvent
from denizen.users.evolve import evolve, fold
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.rejections import Rejected
from denizen.users.state import User, login_names

Decide = Callable[[User], Sequence[UserEvent]]


class _Newcomer(NamedTuple):
    """A registration that was decided: the bucket it belongs to, its events, the state after them, its login names."""

    home: Bucket
    events: Sequence[UserEvent]
    user: User
    names: Sequence[LoginName]


class UserService(UserQueries):
    """Users over all shards. Every method raises only `DenizenError` and, for input that a rule forbids, `Rejected`."""

    def __init__(self, router: Router, names: LoginNames, kinds: frozenset[LoginNameKind]) -> None:
        super().__init__(router, kinds)
        self._names = names
        self._recent = RecentUsers()

    async def register(self, registration: Registration, context: Context) -> Written:
        """Create a user. `LoginNameTaken`, `IdempotencyKeyReused`, `OutcomeUnknown`, or it is durable."""
        newcomer = self._newcomer(registration)
        return await self._unless_done(newcomer.home, context, self._register(newcomer, context))

    async def register_many(
        self, registrations: Sequence[Registration], contexts: Sequence[Context]
    ) -> list[Written | DenizenError | Rejected]:
        """Create many users; a result for each, in order. One that fails does not disturb the others."""
        begun = [self._begin(*item) for item in zip(registrations, contexts, strict=True)]
        answers: list[Any] = await asyncio.gather(*(answer for _, answer in begun), return_exceptions=True)
        results = [
            _done(append, answer, None) if append is not None and _is_done(answer) else answer
            for (append, _), answer in zip(begun, answers, strict=True)
        ]
        other = {
            place: self._go_on(append, answers[place], registrations[place], contexts[place])
            for place, (append, _) in enumerate(begun)
            if append is not None and isinstance(results[place], Outcome)
        }
        for place, result in zip(other, await asyncio.gather(*other.values(), return_exceptions=True), strict=True):
            results[place] = result
        return [result if isinstance(result, Rejected) else expected(result) for result in results]

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

    # The steps they share

    def _newcomer(self, registration: Registration) -> _Newcomer:
        events = decide.register(registration, self._kinds)
        user = fold(events)
        if user is None:
            raise Invalid("a registration needs at least one event")
        names = login_names(user, self._kinds)
        return _Newcomer(self._router.bucket_of_name(names[0]), events, user, names)

    def _begin(self, registration: Registration, context: Context) -> tuple[Append | None, Awaitable[Any]]:
        """Begin one registration of many; if one append is all it takes, without a task of its own."""
        try:
            newcomer = self._newcomer(registration)
            append, change = self._new_append(newcomer, context)
            if not change.gained:
                return append, self._router.submit(append)
        except (DenizenError, Rejected) as error:
            return None, _failed(error)
        attempt = self._unless_done(newcomer.home, context, self._register(newcomer, context))
        return None, asyncio.ensure_future(attempt)

    async def _go_on(self, append: Append, outcome: Outcome, registration: Registration, context: Context) -> Written:
        """The end of a registration whose append was not simply done. It may have been done: never begin anew then."""
        if outcome.result is Result.NAME_TAKEN:
            return await self.register(registration, context)  # which waits if the name is only about to become free
        return await self._written(append, await self._router.settle(append, outcome), None)

    async def _register(self, newcomer: _Newcomer, context: Context) -> Written:
        return await self._do(lambda: self._new_append(newcomer, context), context, None)

    def _new_append(self, newcomer: _Newcomer, context: Context) -> tuple[Append, Change]:
        user_id = mint_user_id(newcomer.home, time.time_ns() // 1_000_000)
        change = self._names.change(user_id, _new_command_id(), (), newcomer.names)
        return self._append_of(change, NO_STREAM, newcomer.events, newcomer.user, context), change

    async def _command(self, user_id: UUID, decision: Decide, if_version: int | None, context: Context) -> Written:
        if context.idempotency_key is None:
            return await self._change_user(UserId(user_id), decision, if_version, context)
        bucket = bucket_of(user_id)
        earlier = await self._earlier(bucket, context)
        if earlier is not None:
            return earlier
        return await self._unless_done(
            bucket, context, self._change_user(UserId(user_id), decision, if_version, context)
        )

    async def _change_user(
        self, user_id: UserId, decision: Decide, if_version: int | None, context: Context
    ) -> Written:
        recent = self._recent.get(user_id)
        if recent is not None and if_version in (None, recent.version):
            try:
                if events := decision(recent.user):
                    return await self._change(recent, events, context)
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
                raise _conflict(if_version, stored.version)
            try:
                events = decision(stored.user)
            except Rejected as rejected:
                raise _translated(rejected) from rejected
            if not events:
                return Written(stored, await self._head(bucket_of(user_id)))
            try:
                return await self._change(stored, events, context)
            except VersionConflict:
                if if_version is not None:
                    raise
            tries = min(attempt, limits.optimistic_attempts_max)
            await asyncio.sleep(random.random() * limits.optimistic_pause_s * tries)  # noqa: S311 - no secret
        raise _too_many()

    async def _change(self, stored: StoredUser, events: Sequence[UserEvent], context: Context) -> Written:
        user = stored.user
        for event in events:
            user = evolve(user, event)
        before: Sequence[LoginName] = ()
        after: Sequence[LoginName] = ()
        if _names_differ(stored.user, user):
            before, after = login_names(stored.user, self._kinds), login_names(user, self._kinds)

        def attempt() -> tuple[Append, Change]:
            change = self._names.change(stored.id, _new_command_id(), before, after)
            return self._append_of(change, stored.version, events, user, context), change

        return await self._do(attempt, context, stored)

    async def _do(
        self, attempt: Callable[[], tuple[Append, Change]], context: Context, before: StoredUser | None
    ) -> Written:
        """Prepare the login names elsewhere, append, finish; again if a name here was only about to become free."""
        for _ in range(limits.optimistic_attempts_max):
            append, change = attempt()
            await self._names.prepare(change, context.actor)
            try:
                return await self._append(append, change, context, before)
            except LoginNameTaken:
                if not await self._names.wait_free(change.gained_here):
                    raise
        raise _too_many()

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
        return await self._written(append, outcome, before)

    def _append_of(
        self, change: Change, version: int, events: Iterable[UserEvent], user: User, context: Context
    ) -> Append:
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

    async def _written(self, append: Append, outcome: Outcome, before: StoredUser | None) -> Written:
        """The answer to an append; the error that its outcome stands for."""
        match outcome.result:
            case Result.DONE:
                written = _done(append, outcome, before)
                self._recent.put(written.user)
                return written
            case Result.REPEATED:
                return await self._repeated(append, outcome)
            case Result.VERSION_CONFLICT:
                raise _conflict(append.expected, outcome.version)
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

    async def _unless_done(self, bucket: Bucket, context: Context, attempt: Awaitable[Written]) -> Written:
        """Attempt it; what stands in its way may be an earlier request under the same key: then that one's answer."""
        if context.idempotency_key is None:
            return await attempt
        try:
            return await attempt
        except (OutcomeUnknown, Overloaded, IdempotencyKeyReused):
            raise
        except DenizenError:
            earlier = await self._earlier(bucket, context)
            if earlier is None:
                raise
            return earlier

    async def _earlier(self, bucket: Bucket, context: Context) -> Written | None:
        """The answer that this idempotency key had before, if any."""
        record = await idempotency.find(self._router, bucket, context)
        if record is None:
            return None
        if record.fingerprint != idempotency.stored_fingerprint(context):
            raise _key_reused()
        user = await self.get_as_of(record.user_id, version=record.version)
        return Written(user, Position(bucket, EventSequence(record.sequence)), replayed=True)

    async def _head(self, bucket: Bucket) -> Position:
        async def ask(connection: asyncpg.Connection) -> int:
            head: int = await connection.fetchval("select head from denizen.buckets where bucket = $1", bucket)
            return head

        return Position(bucket, EventSequence(await self._router.read(bucket, ask)))


def _done(append: Append, outcome: Outcome, before: StoredUser | None) -> Written:
    """The answer to an append that was done; `before` is the user as it was, None for a new one."""
    if append.state is None:
        raise TypeError("an append to a user's stream carries the state")
    created_at = outcome.recorded_at if before is None else before.created_at
    user = StoredUser(UserId(append.stream), outcome.version, created_at, outcome.recorded_at, append.state)
    return Written(user, _position(append.bucket, outcome))


def _is_done(answer: Any) -> bool:
    return isinstance(answer, Outcome) and answer.result is Result.DONE


def _failed(error: Exception) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _names_differ(before: User, after: User) -> bool:
    return before.email != after.email or before.username != after.username or before.phone != after.phone


def _new_command_id() -> UUID:
    return uuid_of(random.getrandbits(128))


def _position(bucket: Bucket, outcome: Outcome) -> Position:
    return Position(bucket, EventSequence(outcome.sequence))


def _conflict(wanted: int, actual: int) -> VersionConflict:
    return VersionConflict(
        f"the user is at version {actual}, not {wanted}: read it again", expected=wanted, actual=actual
    )


def _key_reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("this idempotency key was used before for another request; use a new one")


def _too_many() -> Unavailable:
    return Unavailable("the user or its login names are changed by too many at once; try again")


def _translated(rejected: Rejected) -> DenizenError | Rejected:
    return WrongStatus(rejected.detail) if rejected.code == "wrong_status" else rejected
