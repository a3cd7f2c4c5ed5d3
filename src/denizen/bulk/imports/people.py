"""From a registration to the rows it becomes: ids, buckets, encoded events and state.

All ids follow from the import's key and the line number, so a resumed import makes the very same ones and recognises
what it did before. Nothing of them can be guessed without the key. A command that was given up by the sweeper can
never be done any more; the next attempt has another command id and the same user id.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final
from uuid import UUID

import msgspec
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from denizen.bulk.imports import rows
from denizen.bulk.imports.fates import Fate
from denizen.bulk.normal import LoginNamesOf
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

_RESERVE, _CONFIRM = (
    1,
    2,
)  # as in service/login_names.py: a step's command id is the reservation's xor this
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


_BYTE: Final = [bytes((value,)) for value in range(256)]
_TWO_BYTES: Final = [(0x8000 | bucket).to_bytes(2, "big") for bucket in range(BUCKETS)]
_SAMPLE: Final = (1, "a", UUID(int=0), UUID(int=0))
_RESERVED: Final = _kind_of(LoginNameReserved(*_SAMPLE))
_CONFIRMED: Final = _kind_of(LoginNameConfirmed(*_SAMPLE))
_REGISTERED: Final = _kind_of(UserRegistered())


class Person(msgspec.Struct, gc=False, eq=False):
    """One accepted line: a user to be, its rows without sequence and moment, and its names in its own bucket."""

    line: int
    id: bytes
    bucket: int
    command: bytes
    attempt: int = 1
    data: tuple[tuple[int, int, bytes], ...] = ()  # of each event: type number, schema version, data
    events: tuple[bytes, ...] = ()
    user: bytes = b""
    home: tuple[tuple[int, bytes], ...] = ()
    home_rows: bytes = b""
    fate: Fate | None = None


class Name(msgspec.Struct, gc=False, eq=False):
    """A login name in another bucket than its user's; `version` is that of its stream before it is reserved."""

    person: Person
    kind: int
    value: bytes
    bucket: int
    stream: bytes
    data: bytes
    version: int = 0
    reserved: bool = False

    def reserving(self) -> tuple[bytes, bytes, bytes]:
        """The rows that reserve it: event, login name, unsettled."""
        person = self.person
        command = person.command
        return (
            rows.event_tail(
                self.stream, self.version + 1, self.bucket, *_RESERVED, _step_id(command, _RESERVE), self.data
            ),
            rows.reserved_name(person.id, command, self.bucket, self.kind, self.value),
            rows.unsettled_tail(self.bucket, self.kind, self.value),
        )

    def reserving_command(self) -> bytes:
        """The command id of the event that reserves it."""
        return _step_id(self.person.command, _RESERVE)

    def confirming(self) -> bytes:
        """The event that confirms it."""
        step_id = _step_id(self.person.command, _CONFIRM)
        return rows.event_tail(self.stream, self.version + 2, self.bucket, *_CONFIRMED, step_id, self.data)


def _step_id(command: bytes, step: int) -> bytes:
    return command[:15] + _BYTE[command[15] ^ step]


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
        self._names = LoginNamesOf(seed, kinds)

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
        for kind, value in self._names.normal(user):
            raw = value.encode()
            key = b"%d\0%b" % (kind, raw)
            bucket = xxh3_64_intdigest(key, self._seed) % BUCKETS
            if person is None:
                person = self._new(line, bucket)
            if bucket == person.bucket:
                person.home += ((kind, raw),)
                person.home_rows += rows.held_name(person.id, bucket, kind, raw)
            else:
                data = _encode_name(NameData(kind, value, person.id, person.command))
                names.append(Name(person, kind, raw, bucket, self._stream(key, bucket), data))
        if person is None:
            raise Invalid("a registration needs a login name")
        person.data = tuple(map(codec.encode, events))
        person.events = self._rows_of(person)
        person.user = rows.user_tail(person.id, len(events), person.bucket, user.status.value, encode_state(user))
        return person, names

    def again(self, person: Person, names: Iterable[Name]) -> None:
        """Give the person's command another id: the one it had was given up and can never be done."""
        person.attempt += 1
        person.command = self._command(person.line, person.attempt)
        person.events = self._rows_of(person)
        for name in names:
            if name.person is person:
                name.data = _encode_name(NameData(name.kind, name.value.decode(), person.id, person.command))

    def _new(self, line: int, bucket: int) -> Person:
        command = self._command(line, 1)
        noise = int.from_bytes(command[:8], "big") & _NOISE
        return Person(line, _id(self._time | bucket, 1 << 63 | noise), bucket, command)

    def _command(self, line: int, attempt: int) -> bytes:
        return xxh3_128_digest(b"%b%d/%d" % (self._key, line, attempt))

    def _stream(self, key: bytes, bucket: int) -> bytes:
        """The same as `stream_of_login_name`, as bytes."""
        digest = xxh3_128_digest(key, self._seed)
        return digest[:6] + _TWO_BYTES[bucket] + _BYTE[digest[8] | 0xC0] + digest[9:]

    def _rows_of(self, person: Person) -> tuple[bytes, ...]:
        found = []
        for version, (number, schema, data) in enumerate(person.data, 1):
            found.append(
                rows.correlated_event_tail(
                    person.id, version, person.bucket, number, schema, person.command, self._correlation, data
                )
            )
        return tuple(found)
