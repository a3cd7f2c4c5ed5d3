"""One bucket, folded: from its events to the rows that must be there. Pure; fed with rows, asked for differences.

Positions must be dense, versions dense in each stream, and the exclusive or of the events' hashes the bucket's digest.
User events fold to the user's row; events of login names to the rows of names whose users live elsewhere. The names of
the users of this very bucket follow from the users.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import DecodeError, Struct

from denizen.bulk.verification.differences import Difference, shown
from denizen.events import login_name_events as names
from denizen.events.codec import LOGIN_NAME_EVENTS_FROM, UnknownEvent
from denizen.events.reading import decoded
from denizen.events.records import encode_state
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.events import DataErased
from denizen.users.evolve import evolve
from denizen.users.state import User

NameKey = tuple[int, str]  # kind, value
NamePlace = tuple[int, int, str]  # bucket, kind, value
Unsettled = tuple[str, UUID]  # state, reservation
_SIGN: Final = 1 << 64


class NameRow(Struct, frozen=True, gc=False):
    """A row of `login_names` without its key, with what `login_names_unsettled` says of it."""

    user_id: UUID
    state: str
    reservation: UUID | None


class Elsewhere(Struct, frozen=True, gc=False):
    """A login name that a user of this bucket has in another one."""

    user_id: UUID
    kind: int
    value: str
    bucket: int


class _Folded(Struct, gc=False):
    user: User | None
    version: int
    first_at: Any
    last_at: Any


class BucketFold:
    """The fold of one bucket; give it all events in order, then the rows, then `finish`."""

    def __init__(self, bucket: int, login_names_of: LoginNamesOf) -> None:
        self.bucket = bucket
        self.events = 0
        self.elsewhere: list[Elsewhere] = []
        self.held_elsewhere = 0  # rows held or leaving here for users of other buckets
        self.differences: list[Difference] = []
        self._login_names_of = login_names_of
        self._head = 0
        self._digest = 0
        self._users: dict[UUID, _Folded] = {}
        self._secrets: dict[UUID, bytes | None] = {}  # of users' streams
        self._streams: dict[UUID, int] = {}  # versions of login names' streams
        self._name_of: dict[UUID, NameKey] = {}  # the names of those
        self._names: dict[NameKey, NameRow] = {}

    def event(self, row: Sequence[Any]) -> None:
        """The next event: bucket, sequence, stream, version, type, schema, recorded at, data, secret, hash."""
        _, sequence, stream, version, number, schema, recorded_at, data, secret, digest = row
        self.events += 1
        if sequence != self._head + 1:
            self._differ("position_hole", f"after sequence {self._head} comes {sequence}")
        self._head = sequence
        self._digest ^= digest
        if number <= LOGIN_NAME_EVENTS_FROM:
            secret = self._secrets.setdefault(stream, secret)  # it comes with the stream's first event
        try:
            event = decoded(stream, version, number, schema, data, secret)
        except (DecodeError, UnknownEvent) as error:
            self._differ("event_unreadable", f"sequence {sequence}: {error}", stream)
            event = DataErased()
        if number > LOGIN_NAME_EVENTS_FROM:
            self._name_event(stream, version, event)
            return
        folded = self._users.get(stream)
        if folded is None:
            if stream.int >> 64 & 0xFFF != self.bucket:
                self._differ("stream_misplaced", f"sequence {sequence} is of a user of another bucket", stream)
            if version != 1:
                self._differ("version_hole", f"the stream begins with version {version}", stream)
            self._users[stream] = _Folded(evolve(None, event), version, recorded_at, recorded_at)  # type: ignore[arg-type]
            return
        if version != folded.version + 1:
            self._differ("version_hole", f"after version {folded.version} comes {version}", stream)
        folded.user = evolve(folded.user, event)  # type: ignore[arg-type]
        folded.version = version
        folded.last_at = recorded_at

    def bucket_row(self, head: int, digest: int) -> None:
        """The bucket's own row."""
        if head != self._head:
            self._differ("bucket_head", f"the head is {head}, the last event has sequence {self._head}")
        if (digest ^ self._digest) % _SIGN:
            self._differ("bucket_digest", f"the digest is {digest}, that of the events {self._digest}")

    def user_row(self, row: Sequence[Any]) -> None:
        """A row of `users`: bucket, id, version, status, created at, updated at, document. Any order, each once."""
        _, user_id, version, status, created_at, updated_at, document = row
        folded = self._users.get(user_id)
        if folded is None or folded.user is None:
            self._differ("user_extra", f"version {version}, but no events", user_id)
            return
        user, folded.user = folded.user, None  # seen
        for name in self._login_names_of(user):
            kind, value, bucket = name
            if bucket == self.bucket:
                self._names[kind, value] = NameRow(user_id, "held", None)
            else:
                self.elsewhere.append(Elsewhere(user_id, kind, value, bucket))
        wrong = []
        if version != folded.version:
            wrong.append(f"version {version}, events {folded.version}")
        if status != user.status.value:
            wrong.append(f"status {status}, events {user.status.value}")
        if created_at != folded.first_at:
            wrong.append(f"created at {created_at.isoformat()}, events {folded.first_at.isoformat()}")
        if updated_at != folded.last_at:
            wrong.append(f"updated at {updated_at.isoformat()}, events {folded.last_at.isoformat()}")
        if document != encode_state(user):
            wrong.append("the document is not the fold of the events")
        if wrong:
            self._differ("user_differs", "; ".join(wrong), user_id)

    def users_end(self) -> None:
        """All rows of `users` were given."""
        for stream, folded in self._users.items():
            if folded.user is not None:
                self._differ("user_missing", f"{folded.version} events, but no row", stream)
                for kind, value, bucket in self._login_names_of(folded.user):
                    if bucket == self.bucket:
                        self._names[kind, value] = NameRow(stream, "held", None)
                    else:
                        self.elsewhere.append(Elsewhere(stream, kind, value, bucket))

    def name_row(self, row: Sequence[Any], all_unsettled: dict[NamePlace, Unsettled]) -> None:
        """A row of `login_names`: bucket, kind, value, user id. It is taken off the unsettled."""
        _, kind, value, user_id = row
        state, reservation = "held", None
        if all_unsettled:
            state, reservation = all_unsettled.pop((self.bucket, kind, value), (state, reservation))
        expected = self._names.pop((kind, value), None)
        if state != "reserved" and user_id.int >> 64 & 0xFFF != self.bucket:
            self.held_elsewhere += 1
        if expected is None:
            self._differ("name_extra", f"it is {state}, but no event gives it to this user", user_id, value)
        elif (expected.user_id, expected.state, expected.reservation) != (user_id, state, reservation):
            facts = f"{state} by {user_id} ({reservation}), events say {shown(expected)}"
            self._differ("name_differs", facts, user_id, value)

    def names_end(self) -> None:
        """All rows of `login_names` were given."""
        for (_, value), row in self._names.items():
            self._differ("name_missing", f"events say that it is {row.state}", row.user_id, value)

    def _name_event(self, stream: UUID, version: int, event: Any) -> None:
        before = self._streams.get(stream, 0)
        if version != before + 1:
            self._differ("version_hole", f"after version {before} comes {version}", stream)
        if stream.int >> 64 & 0xFFF != self.bucket:
            self._differ("stream_misplaced", "it is of a login name of another bucket", stream)
        self._streams[stream] = version
        if isinstance(event, names.LoginNameReserved):
            # The name is not known any more if it was given up, further on in the stream.
            self._name_of[stream] = (event.kind, event.value or str(stream))
        key = self._name_of.get(stream)
        if key is None or isinstance(event, DataErased):
            return  # that it cannot be read, or that something is missing before it, was said already
        match event:
            case names.LoginNameReserved():
                self._names[key] = NameRow(event.user_id, "reserved", event.reservation)
            case names.LoginNameLeaving():
                self._names[key] = NameRow(event.user_id, "leaving", event.reservation)
            case names.LoginNameConfirmed() | names.LoginNameRestored():
                self._names[key] = NameRow(event.user_id, "held", None)
            case _:
                self._names.pop(key, None)

    def _differ(self, kind: str, detail: str, user_id: UUID | None = None, name: str | None = None) -> None:
        self.differences.append(Difference(kind, self.bucket, detail, user_id, name))
