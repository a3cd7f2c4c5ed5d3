"""Login names that live in another bucket than their user: a protocol over two shards.

    reserve the new names, mark the old ones as leaving → append to the user's stream → confirm the new, release the old

Every step is one append in the bucket it concerns, and every step can be the last before a crash. The user's stream is
the truth: the sweeper, which finds an unsettled name, first makes sure that the command behind it is either done or can
never be done any more (`cancel`), and then finishes or undoes the change by what the user's state says. Confirm,
restore and release compare the reservation id, so that a late one changes nothing. Whoever wants a name that is in a
change waits a little for its end.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import structlog
from msgspec import Struct
from msgspec.structs import replace

from denizen import limits
from denizen.errors import DenizenError, LoginNameTaken, OutcomeUnknown, Unavailable, VersionConflict
from denizen.events import login_name_events as happened
from denizen.events.records import ANY_VERSION, Append, NameAction, NameRecord, Outcome, Result
from denizen.service.router import Router
from denizen.service.streams import current_user
from denizen.sharding.hashing import stream_of_login_name
from denizen.sharding.ids import Bucket, UserId, bucket_of, uuid_of
from denizen.users.login_names import LoginName, LoginNameKind
from denizen.users.state import login_names

_log = structlog.get_logger()

_EVENT: Final[dict[str, Callable[[int, UUID, UUID], happened.LoginNameEvent]]] = {
    "reserve": happened.LoginNameReserved,
    "confirm": happened.LoginNameConfirmed,
    "leave": happened.LoginNameLeaving,
    "restore": happened.LoginNameRestored,
    "release": happened.LoginNameReleased,
}
_STEP: Final = {action: number for number, action in enumerate(_EVENT, 1)}

Step = tuple[LoginName, str]


class Change(Struct, frozen=True):
    """What one command does to its user's login names; `here` is the user's own bucket."""

    user_id: UserId
    command_id: UUID
    here: Bucket
    gained_here: tuple[LoginName, ...]
    lost_here: tuple[LoginName, ...]
    gained: tuple[LoginName, ...]
    lost: tuple[LoginName, ...]

    def steps(self) -> list[Step]:
        """What is to be prepared elsewhere, in the order that everybody keeps."""
        if not self.gained and not self.lost:
            return []
        return [(name, "reserve") for name in sorted(self.gained)] + [(name, "leave") for name in sorted(self.lost)]

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
        """Reserve what is gained elsewhere, then mark what is lost elsewhere; if that fails, all of it is undone.

        One after the other, and in the same order for everybody: so no two commands wait for each other.
        `LoginNameTaken`; `VersionConflict` if the user is changed at the same time; `Unavailable`.
        """
        begun: list[Step] = []
        try:
            for step in change.steps():
                begun.append(step)
                await self._prepare_one(change, step, actor)
        except OutcomeUnknown as error:
            await self._undo(change, begun, actor)
            raise Unavailable("a shard did not answer; nothing was changed") from error
        except DenizenError:
            await self._undo(change, begun[:-1], actor)
            raise

    def finish(self, change: Change, actor: str) -> None:
        """The user's stream says it: confirm and release, without anyone waiting. The sweeper does what is missed."""
        for name in change.gained:
            self._later(self._step(change, name, "confirm", actor))
        for name in change.lost:
            self._later(self._step(change, name, "release", actor))

    async def undo(self, change: Change, actor: str) -> None:
        """The command was refused and will never be done: give back what `prepare` took."""
        await self._undo(change, change.steps(), actor)

    async def settle_all(self, change: Change) -> None:
        """Settle every name that `prepare` took, when it is not known to whom the command's outcome belongs."""
        names = (*change.gained, *change.lost)
        await asyncio.gather(*(self.settle(name, change.command_id) for name in names), return_exceptions=True)

    async def settle(self, name: LoginName, reservation: UUID | None = None) -> None:
        """Finish or undo an unsettled change of `name`, after which it is held or free.

        With a `reservation`: only that change, if it is still the one under way.
        """
        record = await self._router.name(name)
        if record is None or record.reservation is None or reservation not in (None, record.reservation):
            return
        await self._cancel(record)
        user = await current_user(self._router, record.user_id)
        if user is not None and name in login_names(user.user, self._kinds):
            action = "confirm" if record.state == "reserved" else "restore"
        else:
            action = "release"
        change = Change(record.user_id, record.reservation, bucket_of(record.user_id), (), (), (), ())
        await self._router.append(self._step(change, name, action, "sweeper"))

    async def mend(self, name: LoginName, user_id: UserId, *, has: bool) -> None:
        """Give a user the row of a name that its state `has`, or take it away; not while a change of it is under way.

        For two shards that were restored from different moments. It begins a change and settles it, so it may be cut
        off anywhere, and whatever happened meanwhile counts. Nothing is done if the name's row is somebody else's.
        """
        change = Change(user_id, uuid4(), bucket_of(user_id), (), (), (), ())
        begun = await self._router.append(self._step(change, name, "reserve" if has else "leave", "repair"))
        if begun.result is Result.DONE:
            await self.settle(name, change.command_id)

    async def wait_free(self, names: Sequence[LoginName]) -> bool:
        """Wait while these names are about to change hands; whether all of them are free then, or somebody has one.

        `Unavailable` if it takes too long.
        """
        if not names:
            return False
        patience = _Patience(names[0].kind)
        while True:
            records = await asyncio.gather(*map(self._router.name, names))
            if any(record is not None and record.state == "held" for record in records):
                return False
            if not any(records):
                return True
            await patience.wait()

    async def drain(self) -> None:
        """Wait for what `finish` started."""
        if self._late:
            await asyncio.wait(self._late)

    async def _prepare_one(self, change: Change, step: Step, actor: str) -> None:
        """One reservation. Another change of the same name that is under way is waited for."""
        name, action = step
        append = self._step(change, name, action, actor)
        patience = _Patience(name.kind)
        while True:
            outcome = await self._router.append(append)
            if outcome.result in (Result.DONE, Result.REPEATED):
                return
            record = await self._router.name(name)
            if record is None or record.state == "held":
                owner = None if record is None else record.user_id
                if action == "reserve" and owner not in (None, change.user_id):
                    raise taken(name.kind)
                if owner != (None if action == "reserve" else change.user_id):
                    raise VersionConflict("the user was changed at the same time; read it and try again")
            await patience.wait()

    async def _undo(self, change: Change, steps: Sequence[Step], actor: str) -> None:
        """Failures here are left to the sweeper: nobody else can take the name meanwhile."""
        undo = {"reserve": "release", "leave": "restore"}
        appends = [self._router.append(self._step(change, name, undo[action], actor)) for name, action in steps]
        await asyncio.gather(*appends, return_exceptions=True)

    def _step(self, change: Change, name: LoginName, action: str, actor: str) -> Append:
        """One step as an append to the name's own stream. Its command id is fixed: a repeated step is recognised."""
        reservation = change.command_id
        event = _EVENT[action](name.kind.value, change.user_id, reservation)
        stream = stream_of_login_name(name, self._router.hash_seed)
        return Append(
            bucket=bucket_of(stream),
            stream=stream,
            expected=ANY_VERSION,
            command_id=uuid_of(reservation.int ^ _STEP[action]),
            events=(replace(event, value=name.value) if action == "reserve" else event,),
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

        async def ask(connection: asyncpg.Connection) -> bool | None:
            epoch = self._router.epoch_of(bucket)
            found: bool | None = await connection.fetchval(
                "select denizen.cancel_command($1, $2, $3, $4)", bucket, epoch, record.user_id, record.reservation
            )
            return found

        if await self._router.read(bucket, ask) is None:
            raise Unavailable(f"bucket {bucket} cannot be written just now")


class _Patience:
    """Waiting for another change of a login name, longer each time, up to a limit."""

    def __init__(self, kind: LoginNameKind) -> None:
        self._kind = kind
        self._until = asyncio.get_running_loop().time() + limits.name_busy_wait_s
        self._pause = limits.name_busy_poll_s

    async def wait(self) -> None:
        """Wait once more; `Unavailable` if that was long enough."""
        if asyncio.get_running_loop().time() > self._until:
            raise Unavailable(f"another change of this {self._kind.word} is under way; try again")
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, limits.name_busy_poll_max_s)


def taken(kind: int) -> LoginNameTaken:
    """The error for a login name that somebody else has."""
    word = LoginNameKind(kind).word
    return LoginNameTaken(f"another user has this {word}", kind=word)
