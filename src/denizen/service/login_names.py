"""Login names that live in another bucket than their user: a protocol over two shards.

    reserve the new names, mark the old ones as leaving → append to the user's stream → confirm the new, release the old

Every step is one append in the bucket it concerns, and every step can be the last before a crash. The user's stream is
the truth: who finds an unsettled name (the sweeper, or somebody who wants that name) first makes sure that the command
behind it is either done or can never be done any more (`cancel`), and then finishes or undoes the change by what the
user's state says. Confirm, restore and release compare the reservation id, so that a late one changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from msgspec import Struct

from denizen import limits
from denizen.errors import DenizenError, LoginNameTaken, Unavailable, VersionConflict
from denizen.events import login_name_events as happened
from denizen.events.records import ANY_VERSION, Append, NameAction, NameRecord, Outcome, Result
from denizen.service.router import Router
from denizen.sharding.hashing import stream_of_login_name
from denizen.sharding.ids import Bucket, UserId, bucket_of
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import login_names

_log = structlog.get_logger()

_EVENT: Final[dict[str, Callable[[int, str, UUID, UUID], happened.LoginNameEvent]]] = {
    "reserve": happened.LoginNameReserved,
    "confirm": happened.LoginNameConfirmed,
    "leave": happened.LoginNameLeaving,
    "restore": happened.LoginNameRestored,
    "release": happened.LoginNameReleased,
}
_STEP: Final = {action: number for number, action in enumerate(_EVENT, 1)}


class Change(Struct, frozen=True):
    """What one command does to its user's login names; `here` is the user's own bucket."""

    user_id: UserId
    command_id: UUID
    here: Bucket
    gained_here: tuple[LoginName, ...]
    lost_here: tuple[LoginName, ...]
    gained: tuple[LoginName, ...]
    lost: tuple[LoginName, ...]

    def local_actions(self) -> tuple[NameAction, ...]:
        """The changes that are made in the transaction of the user's own events."""
        return (
            *[NameAction("release", name, self.user_id) for name in self.lost_here],
            *[NameAction("claim", name, self.user_id) for name in self.gained_here],
        )


class LoginNames:
    """The protocol's steps, for gateways and for the sweeper."""

    def __init__(self, router: Router, kinds: frozenset[LoginNameKind]) -> None:
        self._router = router
        self._kinds = kinds
        self._late: set[asyncio.Future[Outcome]] = set()

    def change(
        self, user_id: UserId, command_id: UUID, before: Sequence[LoginName], after: Sequence[LoginName]
    ) -> Change:
        """Compare a user's login names before and after a command."""
        here = bucket_of(user_id)
        gained = [(name, self._router.bucket_of_name(name) == here) for name in after if name not in before]
        lost = [(name, self._router.bucket_of_name(name) == here) for name in before if name not in after]
        return Change(
            user_id,
            command_id,
            here,
            tuple(name for name, local in gained if local),
            tuple(name for name, local in lost if local),
            tuple(name for name, local in gained if not local),
            tuple(name for name, local in lost if not local),
        )

    async def prepare(self, change: Change, actor: str) -> None:
        """Reserve what is gained elsewhere, mark what is lost elsewhere; `LoginNameTaken` undoes it all."""
        steps = [(name, "reserve") for name in change.gained] + [(name, "leave") for name in change.lost]
        if not steps:
            return
        results = await asyncio.gather(
            *(self._prepare_one(change, name, action, actor) for name, action in steps), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            made = [step for step, result in zip(steps, results, strict=True) if result is None]
            await self._undo(change, made, actor)
            raise failures[0]

    def finish(self, change: Change, actor: str) -> None:
        """The user's stream says it: confirm and release, without anyone waiting. The sweeper does what is missed."""
        for name in change.gained:
            self._later(self._step(change, name, "confirm", actor))
        for name in change.lost:
            self._later(self._step(change, name, "release", actor))

    async def undo(self, change: Change, actor: str) -> None:
        """The command was refused and will never be done: give back what `prepare` took."""
        steps = [(name, "reserve") for name in change.gained] + [(name, "leave") for name in change.lost]
        await self._undo(change, steps, actor)

    async def settle_all(self, change: Change) -> None:
        """Settle every name that `prepare` took, when it is not known to whom the command's outcome belongs."""
        await asyncio.gather(*(self.settle(name) for name in (*change.gained, *change.lost)), return_exceptions=True)

    async def settle(self, name: LoginName) -> None:
        """Finish or undo an unsettled change of `name`, after which it is held or free."""
        record = await self._router.name(name)
        if record is None or record.reservation is None:
            return
        await self._cancel(record)
        user = await self._router.user(record.user_id)
        holds = user is not None and name in login_names(user.user, self._kinds)
        if record.state == "reserved":
            action = "confirm" if holds else "release"
        else:
            action = "restore" if holds else "release"
        bucket = bucket_of(record.user_id)
        change = Change(record.user_id, record.reservation, bucket, (), (), (), ())
        await self._router.append(self._step(change, name, action, "sweeper"))

    async def drain(self) -> None:
        """Wait for what `finish` started."""
        if self._late:
            await asyncio.wait(self._late)

    async def _prepare_one(self, change: Change, name: LoginName, action: str, actor: str) -> None:
        """One reservation. Another change of the same name that is under way is waited for, and settled if stuck."""
        append = self._step(change, name, action, actor)
        deadline = asyncio.get_running_loop().time() + limits.name_busy_wait_s
        while True:
            outcome = await self._router.append(append)
            if outcome.result in (Result.DONE, Result.REPEATED):
                return
            record = await self._router.name(name)
            if action == "leave" and (record is None or record.state == "held"):
                raise VersionConflict("the user was changed at the same time; read it and try again")
            if record is not None and record.state == "held":
                raise taken(name.kind)
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"another change of this {name.kind.word} is under way; try again")
            await asyncio.sleep(limits.name_busy_poll_s)

    async def _undo(self, change: Change, made: Sequence[tuple[LoginName, str]], actor: str) -> None:
        """Failures here are left to the sweeper: nobody else can take the name meanwhile."""
        undo = {"reserve": "release", "leave": "restore"}
        steps: list[Awaitable[Outcome]] = [
            self._router.append(self._step(change, name, undo[action], actor)) for name, action in made
        ]
        await asyncio.gather(*steps, return_exceptions=True)

    def _step(self, change: Change, name: LoginName, action: str, actor: str) -> Append:
        """One step as an append to the name's own stream. Its command id is fixed: a repeated step is recognised."""
        reservation = change.command_id
        return Append(
            bucket=self._router.bucket_of_name(name),
            stream=stream_of_login_name(name, self._router.hash_seed),
            expected=ANY_VERSION,
            command_id=UUID(int=reservation.int ^ _STEP[action]),
            events=(_EVENT[action](name.kind.value, name.value, change.user_id, reservation),),
            actor=actor,
            names=(NameAction(action, name, change.user_id, reservation),),
        )

    def _later(self, append: Append) -> None:
        try:
            future = asyncio.ensure_future(self._router.submit(append))
        except DenizenError:
            return  # the queue is full or the shard is unknown: the sweeper's work
        self._late.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: "asyncio.Future[Outcome]") -> None:
        self._late.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.info("login_name_left_to_sweeper", error=type(error).__name__)

    async def _cancel(self, record: NameRecord) -> None:
        """Make sure that the command behind a reservation is done, or can never be done any more."""
        bucket = bucket_of(record.user_id)
        epoch = self._router.epoch_of(bucket)

        async def ask(connection: asyncpg.Connection) -> bool | None:
            found: bool | None = await connection.fetchval(
                "select denizen.cancel_command($1, $2, $3, $4)", bucket, epoch, record.user_id, record.reservation
            )
            return found

        if await self._router.read(bucket, ask) is None:
            raise Unavailable(f"bucket {bucket} cannot be written just now")


def taken(kind: int) -> LoginNameTaken:
    """The error for a login name that somebody else has."""
    word = LoginNameKind(kind).word
    return LoginNameTaken(f"another user has this {word}", kind=word)
