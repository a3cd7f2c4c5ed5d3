"""Registrations, one or many: a user who is new, and all its login names.

A registration mints its id into the bucket of the first login name, so that the commonest write is one transaction on
one shard. Of many, those that take one append each are submitted together, without a task for each.
"""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from denizen.errors import DenizenError, Invalid
from denizen.events.records import NO_STREAM, Append, Outcome, Result
from denizen.service.context import Context, Written
from denizen.service.login_names import Change, LoginNames
from denizen.service.queries import expected
from denizen.service.router import Router
from denizen.service.writes import Writes, append_of, done, new_command_id
from denizen.sharding.ids import Bucket, mint_user_id
from denizen.users import decide
from denizen.users.commands import Registration
from denizen.users.events import UserEvent
from denizen.users.evolve import fold
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.rejections import Rejected
from denizen.users.state import User, login_names


class _Newcomer(NamedTuple):
    """A registration that was decided: the bucket it belongs to, its events, the state after them, its login names."""

    home: Bucket
    events: Sequence[UserEvent]
    user: User
    names: Sequence[LoginName]


class Registrations:
    """Creates users. Every method raises only `DenizenError` and, for input that a rule forbids, `Rejected`."""

    def __init__(self, router: Router, names: LoginNames, kinds: frozenset[LoginNameKind], writes: Writes) -> None:
        self._router = router
        self._names = names
        self._kinds = kinds
        self._writes = writes

    async def one(self, registration: Registration, context: Context) -> Written:
        """Create a user. `LoginNameTaken`, `IdempotencyKeyReused`, `OutcomeUnknown`, or it is durable."""
        newcomer = self._newcomer(registration)
        return await self._carry_out(newcomer, context)

    async def many(
        self, registrations: Sequence[Registration], contexts: Sequence[Context]
    ) -> list[Written | DenizenError | Rejected]:
        """Create many users; a result for each, in order. One that fails does not disturb the others."""
        begun = [self._begin(*item) for item in zip(registrations, contexts, strict=True)]
        answers: list[Any] = await asyncio.gather(*(answer for _, answer in begun), return_exceptions=True)
        results = [
            done(append, answer, None) if append is not None and _is_done(answer) else answer
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
        return None, asyncio.ensure_future(self._carry_out(newcomer, context))

    async def _go_on(self, append: Append, outcome: Outcome, registration: Registration, context: Context) -> Written:
        """The end of a registration whose append was not simply done. It may have been done: never begin anew then."""
        if outcome.result is Result.NAME_TAKEN:
            return await self.one(registration, context)  # which waits if the name is only about to become free
        return await self._writes.answer(append, await self._router.settle(append, outcome), None)

    def _carry_out(self, newcomer: _Newcomer, context: Context) -> Coroutine[Any, Any, Written]:
        attempt = self._writes.carry_out(partial(self._new_append, newcomer, context), context, None)
        return self._writes.unless_done(newcomer.home, context, attempt)

    def _new_append(self, newcomer: _Newcomer, context: Context) -> tuple[Append, Change]:
        user_id = mint_user_id(newcomer.home, time.time_ns() // 1_000_000)
        change = self._names.change(user_id, new_command_id(), (), newcomer.names)
        return append_of(change, NO_STREAM, newcomer.events, newcomer.user, context), change


def _is_done(answer: Any) -> bool:
    return isinstance(answer, Outcome) and answer.result is Result.DONE


def _failed(error: Exception) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
