"""From a registration to the rows it becomes: ids, buckets, encoded events and state.

All ids follow from the import's key and the line number, so a resumed import makes the very same ones and recognises
what it did before. Nothing of them can be guessed without the key. A command that was given up by the sweeper can
never be done any more; the next attempt has another command id and the same user id.
"""

from struct import Struct
from typing import Any, Final
from uuid import UUID

import msgspec
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from denizen.bulk.imports import rows
from denizen.errors import Invalid
from denizen.events.codec import codec
from denizen.events.login_name_events import LoginNameConfirmed, LoginNameReserved
from denizen.events.records import encode_state
from denizen.sharding.ids import BUCKETS
from denizen.users import decide
from denizen.users.commands import Registration
from denizen.users.events import UserRegistered
from denizen.users.evolve import fold
from denizen.users.login_names import LoginNameKind
from denizen.users.state import User, login_names

_RESERVE, _CONFIRM = (
    1,
    2,
)  # the steps' numbers in service/login_names.py: a step's command id is the reservation's xor it
_NOISE: Final = (1 << 62) - 1
_id: Final = Struct(">QQ").pack


class NameData(msgspec.Struct, frozen=True, gc=False):
    """The data of a login name's event, as bytes where the event has UUIDs: they encode alike, and quicker."""

    kind: int
    value: str
    user_id: bytes
    reservation: bytes


_encode_name: Final = msgspec.msgpack.Encoder().encode


def _kind_of(event: Any) -> tuple[int, int]:
    number, schema, _ = codec.encode(event)
    return number, schema


_SAMPLE: Final = (1, "a", UUID(int=0), UUID(int=0))
_RESERVED: Final = _kind_of(LoginNameReserved(*_SAMPLE))
_CONFIRMED: Final = _kind_of(LoginNameConfirmed(*_SAMPLE))
_REGISTERED: Final = _kind_of(UserRegistered())


class Person:
    """One accepted line: a user to be, its rows without sequence and moment, and its names in its own bucket."""

    __slots__ = ("attempt", "bucket", "command", "data", "events", "fate", "home", "home_rows", "id", "line", "user")

    def __init__(self, line: int, user_id: bytes, bucket: int, command: bytes) -> None:
        self.line = line
        self.id = user_id
        self.bucket = bucket
        self.command = command
        self.attempt = 1
        self.data: list[tuple[int, int, bytes]] = []
        self.events: list[bytes] = []
        self.user = b""
        self.home: list[tuple[int, bytes]] = []
        self.home_rows = b""
        self.fate: Any = None


class Name:
    """A login name in another bucket than its user's; `version` is that of its stream before it is reserved."""

    __slots__ = ("bucket", "kind", "person", "reserved", "stream", "value", "version")

    def __init__(self, person: Person, kind: int, value: bytes, bucket: int, stream: bytes) -> None:
        self.person = person
        self.kind = kind
        self.value = value
        self.bucket = bucket
        self.stream = stream
        self.version = 0
        self.reserved = False

    def reserving(self) -> tuple[bytes, bytes, bytes]:
        """The rows that reserve it: event, login name, unsettled."""
        person = self.person
        return (
            self._event(_RESERVED, self.version + 1, _RESERVE),
            rows.reserved_name(person.id, person.command, self.bucket, self.kind, self.value),
            rows.unsettled_tail(self.bucket, self.kind, self.value),
        )

    def confirming(self) -> bytes:
        """The event that confirms it."""
        return self._event(_CONFIRMED, self.version + 2, _CONFIRM)

    def _event(self, kind: tuple[int, int], version: int, step: int) -> bytes:
        person = self.person
        command = person.command
        data = _encode_name(NameData(self.kind, self.value.decode(), person.id, command))
        step_id = command[:15] + bytes((command[15] ^ step,))
        return rows.event_tail(self.stream, version, self.bucket, kind, step_id, data)


class Maker:
    """Makes people. `key` is the import's secret, `correlation` its id, `started_ms` its Unix time."""

    def __init__(
        self, key: bytes, correlation: UUID, started_ms: int, seed: int, kinds: frozenset[LoginNameKind]
    ) -> None:
        self._key = key
        self._correlation = correlation.bytes
        self._time = started_ms << 16 | 0x8000
        self._seed = seed
        self._kinds = kinds

    def person(self, line: int, registration: Registration, *, suspended: bool = False) -> tuple[Person, list[Name]]:
        """The user that this line becomes; `Rejected` if it has no login name of the deployment's kinds."""
        events = decide.register(registration, self._kinds)
        user = fold(events)
        if user is None:
            raise Invalid("a registration needs at least one event")
        if suspended:
            events += decide.suspend(user, "import")
            user = fold(events) or user
        person: Person | None = None
        names = []
        for name in login_names(user, self._kinds):
            kind = name.kind.value
            raw = name.value.encode()
            key = b"%d\0%b" % (kind, raw)
            bucket = xxh3_64_intdigest(key, self._seed) % BUCKETS
            if person is None:
                person = self._new(line, bucket)
            if bucket == person.bucket:
                person.home.append((kind, raw))
                person.home_rows += rows.held_name(person.id, bucket, kind, raw)
            else:
                names.append(Name(person, kind, raw, bucket, self._stream(key, bucket)))
        if person is None:
            raise Invalid("a registration needs a login name")
        person.data = [codec.encode(event) for event in events]
        self._fill(person, user)
        return person, names

    def again(self, person: Person) -> None:
        """Give the person's command another id: the one it had was given up and can never be done."""
        person.attempt += 1
        person.command = self._command(person.line, person.attempt)
        self._fill_events(person)

    def _new(self, line: int, bucket: int) -> Person:
        noise = xxh3_64_intdigest(b"%b%d" % (self._key, line)) & _NOISE
        return Person(line, _id(self._time | bucket, 1 << 63 | noise), bucket, self._command(line, 1))

    def _command(self, line: int, attempt: int) -> bytes:
        return xxh3_128_digest(b"%b%d/%d" % (self._key, line, attempt))

    def _stream(self, key: bytes, bucket: int) -> bytes:
        """The same as `stream_of_login_name`, as bytes."""
        digest = xxh3_128_digest(key, self._seed)
        return b"%b%b%b%b" % (
            digest[:6],
            (0x8000 | bucket).to_bytes(2, "big"),
            (digest[8] | 0xC0).to_bytes(1, "big"),
            digest[9:],
        )

    def _fill(self, person: Person, user: User) -> None:
        self._fill_events(person)
        person.user = rows.user_tail(person.id, len(person.data), person.bucket, user.status.value, encode_state(user))

    def _fill_events(self, person: Person) -> None:
        person.events = [
            rows.event_tail(
                person.id, version, person.bucket, (number, schema), person.command, data, self._correlation
            )
            for version, (number, schema, data) in enumerate(person.data, 1)
        ]
