"""Commands and queries on users: read, decide, append; over whichever shards it takes.

A command on an existing user reads its state, decides in pure code, and appends with the version it read; if somebody
else was faster it starts again, unless the caller insisted on a version. A registration mints its id into the bucket of
the first login name, so that the commonest write is one transaction on one shard.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from denizen import limits
from denizen.errors import (
    DenizenError,
    IdempotencyKeyReused,
    Invalid,
    OutcomeUnknown,
    Unavailable,
    UserDeleted,
    UserNotFound,
    VersionConflict,
    WrongStatus,
)
from denizen.events.reading import END_OF_TIME, VERSION_MAX, read_page, read_stream
from denizen.events.records import (
    NO_STREAM,
    Append,
    Outcome,
    RecordedEvent,
    Result,
    StoredUser,
)
from denizen.service import idempotency
from denizen.service.context import Context, Written
from denizen.service.login_names import Change, LoginNames, taken
from denizen.service.router import Router
from denizen.sharding.ids import Bucket, Position, UserId, bucket_of, mint_user_id
from denizen.sharding.ids import Sequence as EventSequence
from denizen.users import decide
from denizen.users.commands import Registration, UserPatch
from denizen.users.events import UserEvent
from denizen.users.evolve import evolve, fold
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.rejections import Rejected
from denizen.users.state import Status, User, login_names

Decide = Callable[[User], Sequence[UserEvent]]


class UserService:
    """Users over all shards. Every method raises only `DenizenError` and, for input that a rule forbids, `Rejected`."""

    def __init__(self, router: Router, names: LoginNames, kinds: frozenset[LoginNameKind]) -> None:
        self._router = router
        self._names = names
        self._kinds = kinds

    # Registration

    async def register(self, registration: Registration, context: Context) -> Written:
        """Create a user. `LoginNameTaken`, `IdempotencyKeyReused`, `OutcomeUnknown`, or it is durable."""
        append, change = self._registration(registration, context)
        if change.gained:
            return await self._register_with_names_elsewhere(append, change, context)
        outcome = await self._router.append(append)
        return await self._written(append, outcome, None)

    async def register_many(
        self, registrations: Sequence[Registration], contexts: Sequence[Context]
    ) -> list[Written | DenizenError | Rejected]:
        """Create many users; a result for each, in order. One that fails does not disturb the others."""
        results = await asyncio.gather(
            *(self._register_one_of_many(*item) for item in zip(registrations, contexts, strict=True)),
            return_exceptions=True,
        )
        return [_expected(result) for result in results]

    async def _register_one_of_many(self, registration: Registration, context: Context) -> Written:
        return await self.register(registration, context)

    def _registration(self, registration: Registration, context: Context) -> tuple[Append, Change]:
        events = decide.register(registration, self._kinds)
        user = fold(events)
        if user is None:
            raise Invalid("a registration needs at least one event")
        names = login_names(user, self._kinds)
        home = self._router.bucket_of_name(names[0])
        user_id = mint_user_id(home, time.time_ns() // 1_000_000)
        command_id = _new_command_id()
        change = self._names.change(user_id, command_id, (), names)
        return self._append_of(change, NO_STREAM, events, user, context), change

    async def _register_with_names_elsewhere(self, append: Append, change: Change, context: Context) -> Written:
        try:
            await self._names.prepare(change, context.actor)
        except DenizenError:
            # The names may be taken by our own first attempt, under the same idempotency key.
            earlier = await self._earlier(append.bucket, context)
            if earlier is not None:
                return earlier
            raise
        return await self._append_and_finish(append, change, context, None)

    # Changes

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

    async def _command(self, user_id: UUID, decision: Decide, if_version: int | None, context: Context) -> Written:
        identifier = UserId(user_id)
        earlier = await self._earlier(bucket_of(identifier), context)
        if earlier is not None:
            return earlier
        for _ in range(limits.optimistic_attempts_max):
            stored = await self.get(identifier)
            if if_version is not None and stored.version != if_version:
                raise _conflict(if_version, stored.version)
            try:
                events = decision(stored.user)
            except Rejected as rejected:
                raise _translated(rejected) from rejected
            if not events:
                return Written(stored, await self._head(bucket_of(identifier)))
            try:
                return await self._change(stored, events, context)
            except VersionConflict:
                if if_version is not None:
                    raise
        raise Unavailable("the user is changed by too many at once; try again")

    async def _change(self, stored: StoredUser, events: Sequence[UserEvent], context: Context) -> Written:
        user = stored.user
        for event in events:
            user = evolve(user, event)
        before = login_names(stored.user, self._kinds)
        after = login_names(user, self._kinds)
        change = self._names.change(stored.id, _new_command_id(), before, after)
        append = self._append_of(change, stored.version, events, user, context)
        await self._names.prepare(change, context.actor)
        return await self._append_and_finish(append, change, context, stored)

    # Queries

    async def get(self, user_id: UUID) -> StoredUser:
        """The user as it is now. `UserNotFound`, `UserDeleted`."""
        identifier = UserId(user_id)
        stored = await self._router.user(identifier)
        if stored is None:
            stored = await self._folded(identifier, VERSION_MAX, END_OF_TIME)
        if stored is None:
            raise UserNotFound("no user has this id", id=str(user_id))
        if stored.user.status is Status.DELETED:
            raise UserDeleted("this user was deleted; its history remains", id=str(user_id), version=stored.version)
        return stored

    async def get_as_of(self, user_id: UUID, *, version: int | None = None, time: datetime | None = None) -> StoredUser:
        """The user as it was at a version or a time; deleted or not. `UserNotFound` if it was not there yet."""
        stored = await self._folded(UserId(user_id), VERSION_MAX if version is None else version, time or END_OF_TIME)
        if stored is None or (version is not None and stored.version != version):
            raise UserNotFound("there is no such user at that version or time", id=str(user_id))
        return stored

    async def get_many(self, ids: Sequence[UUID]) -> list[StoredUser | DenizenError]:
        """Many users; a result for each, in order."""
        results = await asyncio.gather(*map(self.get, ids), return_exceptions=True)
        return [result for each in results if not isinstance(result := _expected(each), Rejected)]

    async def find(self, name: LoginName) -> StoredUser:
        """The user with this login name. `UserNotFound`."""
        record = await self._router.name(name)
        if record is not None:
            stored = await self._router.user(record.user_id)
            if stored is not None and (record.state == "held" or name in login_names(stored.user, self._kinds)):
                return stored
        raise UserNotFound(f"no user has this {name.kind.word}", kind=name.kind.word)

    async def history(
        self, user_id: UUID, *, after_version: int = 0, limit: int = limits.page_events_max
    ) -> list[RecordedEvent]:
        """The user's events in order, deleted or not. `UserNotFound` if there never was one."""
        events = await self._stream(UserId(user_id), after_version=after_version, limit=limit)
        if not events and not await self._stream(UserId(user_id), limit=1):
            raise UserNotFound("no user has this id", id=str(user_id))
        return events

    async def list_users(
        self, *, after: tuple[int, UUID] | None = None, limit: int = limits.page_users_default
    ) -> list[StoredUser]:
        """Users over all shards in the order of (bucket, id), which no change and no move disturbs; no deleted ones."""
        start = after or (-1, UUID(int=0))
        pages = await asyncio.gather(
            *(
                store.read(lambda connection: read_page(connection, start, limit))
                for store in self._router.stores.values()
            )
        )
        merged = heapq.merge(*pages, key=lambda stored: (bucket_of(stored.id), stored.id))
        return [stored for stored, _ in zip(merged, range(limit), strict=False)]

    async def ready(self) -> dict[str, Any]:
        """Whether each shard answers."""

        async def check(connection: asyncpg.Connection) -> bool:
            return bool(await connection.fetchval("select true"))

        names = list(self._router.stores)
        answers = await asyncio.gather(
            *(store.read(check) for store in self._router.stores.values()), return_exceptions=True
        )
        return {name: answer is True for name, answer in zip(names, answers, strict=True)}

    # The steps they share

    def _append_of(
        self, change: Change, expected: int, events: Iterable[UserEvent], user: User, context: Context
    ) -> Append:
        return Append(
            bucket=change.here,
            stream=change.user_id,
            expected=expected,
            command_id=change.command_id,
            events=tuple(events),
            actor=context.actor,
            correlation_id=context.correlation_id,
            state=user,
            names=change.local_actions(),
            key=idempotency.stored_key(context),
            fingerprint=context.fingerprint,
        )

    async def _append_and_finish(
        self, append: Append, change: Change, context: Context, before: StoredUser | None
    ) -> Written:
        try:
            outcome = await self._router.append(append)
            written = await self._written(append, outcome, before)
        except (OutcomeUnknown, asyncio.CancelledError):
            raise  # the sweeper asks the user's stream
        except DenizenError:
            await self._names.undo(change, context.actor)
            raise
        if outcome.stream == append.stream and outcome.result is Result.DONE:
            self._names.finish(change, context.actor)
        else:
            await self._names.settle_all(change)
        return written

    async def _written(self, append: Append, outcome: Outcome, before: StoredUser | None) -> Written:
        """The answer to an append; the error that its outcome stands for."""
        match outcome.result:
            case Result.DONE:
                created_at = outcome.recorded_at if before is None else before.created_at
                if append.state is None:
                    raise TypeError("an append to a user's stream carries the state")
                user = StoredUser(UserId(append.stream), outcome.version, created_at, outcome.recorded_at, append.state)
                return Written(user, _position(append.bucket, outcome))
            case Result.REPEATED:
                user = await self.get_as_of(outcome.stream, version=outcome.version)
                return Written(user, _position(append.bucket, outcome), replayed=outcome.stream != append.stream)
            case Result.VERSION_CONFLICT:
                raise _conflict(append.expected, outcome.version)
            case Result.NAME_TAKEN:
                raise taken(outcome.version)
            case Result.KEY_REUSED:
                raise _key_reused()
            case _:
                raise Unavailable("the command came too late and was not done; try again")

    async def _earlier(self, bucket: Bucket, context: Context) -> Written | None:
        """The answer that this idempotency key had before, if any."""
        record = await idempotency.find(self._router, bucket, context)
        if record is None:
            return None
        if record.fingerprint != context.fingerprint:
            raise _key_reused()
        user = await self.get_as_of(record.user_id, version=record.version)
        return Written(user, Position(bucket, EventSequence(record.sequence)), replayed=True)

    async def _folded(self, user_id: UserId, version: int, moment: datetime) -> StoredUser | None:
        events = await self._stream(user_id, to_version=version, to_time=moment, limit=VERSION_MAX)
        user: User | None = None
        for recorded in events:
            user = evolve(user, recorded.event)  # type: ignore[arg-type]  # a user's stream holds user events
        if user is None:
            return None
        return StoredUser(user_id, events[-1].version, events[0].recorded_at, events[-1].recorded_at, user)

    async def _stream(self, user_id: UserId, **bounds: Any) -> list[RecordedEvent]:
        async def ask(connection: asyncpg.Connection) -> list[RecordedEvent]:
            return await read_stream(connection, user_id, **bounds)

        return await self._router.read(bucket_of(user_id), ask)

    async def _head(self, bucket: Bucket) -> Position:
        async def ask(connection: asyncpg.Connection) -> int:
            head: int = await connection.fetchval("select head from denizen.buckets where bucket = $1", bucket)
            return head

        return Position(bucket, EventSequence(await self._router.read(bucket, ask)))


def _new_command_id() -> UUID:
    return UUID(int=random.getrandbits(128))


def _position(bucket: Bucket, outcome: Outcome) -> Position:
    return Position(bucket, EventSequence(outcome.sequence))


def _conflict(expected: int, actual: int) -> VersionConflict:
    return VersionConflict(
        f"the user is at version {actual}, not {expected}: read it again", expected=expected, actual=actual
    )


def _key_reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("this idempotency key was used before for another request; use a new one")


def _translated(rejected: Rejected) -> DenizenError | Rejected:
    return WrongStatus(rejected.detail) if rejected.code == "wrong_status" else rejected


def _expected(result: Any) -> Any:
    """A result or an expected error as a value; anything else is a defect and is raised."""
    if isinstance(result, BaseException) and not isinstance(result, DenizenError | Rejected):
        raise result
    return result


__all__ = ["LoginName", "UserService"]
