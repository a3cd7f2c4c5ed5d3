"""What a run of a bucket's events does to its rows: states and login names are folded at the target, never copied.

Pure: fed with events in order, and with how things stood before them where a stream began earlier. Verification has a
fold of its own (`bulk/verification/fold.py`), on purpose: what this one gets wrong, that one finds.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from denizen.events import login_name_events as names
from denizen.events.codec import LOGIN_NAME_EVENTS_FROM
from denizen.events.records import encode_state
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.evolve import evolve
from denizen.users.state import User

NameKey = tuple[int, str]  # kind, value
HELD: Final = "held"


class FoldedUser(Struct, gc=False):
    """A user's row as it is after the events seen so far."""

    user: User
    version: int
    created_at: datetime
    updated_at: datetime


class NameNow(Struct, frozen=True, gc=False):
    """Who has a login name after the events seen so far, and since when it is in a change, if it is."""

    user_id: UUID
    state: str
    reservation: UUID
    since: datetime


class Rows(Struct, frozen=True):
    """What is to be written, in the order of the tables' columns; rows of `gone` keys are in the way."""

    users: list[tuple[Any, ...]]
    gone: list[NameKey]
    names: list[tuple[Any, ...]]
    unsettled: list[tuple[Any, ...]]

    def user_ids(self) -> list[UUID]:
        """The users that have new rows."""
        return [row[0] for row in self.users]

    def name_keys(self) -> list[NameKey]:
        """The login names whose rows are new or gone."""
        return [*self.gone, *((row[2], row[3]) for row in self.names)]


class Fold:
    """The fold of some events of a bucket. `before`: users whose streams began earlier."""

    def __init__(self, bucket: int, login_names_of: LoginNamesOf, before: Mapping[UUID, FoldedUser]) -> None:
        self._bucket = bucket
        self._login_names_of = login_names_of
        self._users: dict[UUID, FoldedUser] = dict(before)
        self._names: dict[NameKey, NameNow | None] = {}  # of users elsewhere; None: free
        self._left = [key for row in before.values() for key in self._held_here(row.user)]

    def event(  # noqa: PLR0917 - what a row tells
        self, stream: UUID, version: int, number: int, recorded_at: datetime, event: Any, name: str | None
    ) -> None:
        """The next event; of a login name's own stream with the name, None if it is not known any more."""
        if number > LOGIN_NAME_EVENTS_FROM:
            if name is not None:  # else it was given up, and that comes further on
                self._name_event(recorded_at, event, name)
            return
        row = self._users.get(stream)
        if row is None:
            self._users[stream] = FoldedUser(evolve(None, event), version, recorded_at, recorded_at)
            return
        row.user = evolve(row.user, event)
        row.version = version
        row.updated_at = recorded_at

    def rows(self) -> Rows:
        """The rows after the last event."""
        users, held, unsettled = [], [], []
        bucket = self._bucket
        for stream, row in self._users.items():
            user = row.user
            users.append(
                (
                    stream,
                    row.created_at,
                    row.updated_at,
                    row.version,
                    bucket,
                    user.status.value,
                    encode_state(user),
                )
            )
            held += [(stream, bucket, kind, value) for kind, value in self._held_here(user)]
        for (kind, value), now in self._names.items():
            if now is not None:
                held.append((now.user_id, bucket, kind, value))
                if now.state != HELD:
                    unsettled.append((now.since, now.reservation, bucket, kind, now.state, value))
        return Rows(users, [*self._left, *self._names], held, unsettled)

    def _held_here(self, user: User) -> list[NameKey]:
        return [(kind, value) for kind, value, bucket in self._login_names_of(user) if bucket == self._bucket]

    def _name_event(self, recorded_at: datetime, event: Any, name: str) -> None:
        state = _STATES.get(type(event))
        now = None if state is None else NameNow(event.user_id, state, event.reservation, recorded_at)
        self._names[event.kind, name] = now


_STATES: Final[dict[type, str]] = {
    names.LoginNameReserved: "reserved",
    names.LoginNameConfirmed: HELD,
    names.LoginNameLeaving: "leaving",
    names.LoginNameRestored: HELD,
}
