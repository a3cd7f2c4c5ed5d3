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
from denizen.errors import Invalid
from denizen.events.codec import codec
from denizen.events.login_name_events import LoginNameConfirmed, LoginNameReserved
from denizen.events.records import encode_state
from denizen.events.sealing import new_key, seal, seal_name
from denizen.sharding.ids import BUCKETS
from denizen.sharding.names_of import LoginNamesOf
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
    user_id: bytes
    reservation: bytes


_encode_name: Final = msgspec.msgpack.Encoder().encode


def _kind_of(event: Any) -> tuple[int, int]:
    number, schema, _ = codec.encode(event)
    return number, schema


_BYTE: Final = [bytes((value,)) for value in range(256)]
_TWO_BYTES: Final = [(0x8000 | bucket).to_bytes(2, "big") for bucket in range(BUCKETS)]
_SAMPLE: Final = (1, UUID(int=0), UUID(int=0))
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
    data: tuple[tuple[int, int, bytes], ...] = ()  # of each event: type number, schema version, data, sealed
    secret: bytes = b""  # see events/sealing.py
    events: tuple[bytes, ...] = ()
    user: bytes = b""
    home: tuple[tuple[int, bytes], ...] = ()
    home_rows: bytes = b""
    fate: Fate | None = None


class Name(msgspec.Struct, gc=False, eq=False):
    """A login name in another bucket than its user's, and the rows that reserve and confirm it.

    They are packed while everything is at hand (and in the processor's cache), for a name that never had events;
    `rows_after` packs them again for one that had some, or whose person has another command by now.
    """

    person: Person
    kind: int
    value: bytes
    bucket: int
    stream: bytes
    reserving: bytes  # event, without sequence and moment
    confirming: bytes  # event, likewise
    row: bytes  # of login_names
    unsettled: bytes  # row, without its moment
    version: int = 0  # of its stream, before it is reserved
    reserved: bool = False

    def rows_after(self, version: int) -> None:
        """Pack the rows for a stream that is at this version."""
        person = self.person
        self.version = version
        self.reserving, self.confirming = _name_events(
            self.kind, self.value.decode(), person.id, person.command, self.stream, self.bucket, version
        )
        self.unsettled = rows.reserved_tail(person.command, self.bucket, self.kind, self.value)

    def reserving_command(self) -> bytes:
        """The command id of the event that reserves it."""
        return _step_id(self.person.command, _RESERVE)


def _name_events(  # noqa: PLR0917  the parts of two rows
    kind: int, value: str, user_id: bytes, command: bytes, stream: bytes, bucket: int, version: int
) -> tuple[bytes, bytes]:
    data = _encode_name(NameData(kind, user_id, command))
    secret = seal_name(stream, value)
    return (
        rows.event_tail(stream, version + 1, bucket, *_RESERVED, _step_id(command, _RESERVE), data, secret),
        rows.event_tail(stream, version + 2, bucket, *_CONFIRMED, _step_id(command, _CONFIRM), data, None),
    )


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
                person.home_rows += rows.name_row(person.id, bucket, kind, raw)
            else:
                names.append(self._name(person, kind, value, raw, key, bucket))
        if person is None:
            raise Invalid("a registration needs a login name")
        person.secret, cipher = new_key(person.id)
        person.data = tuple(
            (number, schema, seal(cipher, person.id, version, number, schema, data))
            for version, (number, schema, data) in enumerate(map(codec.encode, events), 1)
        )
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
                name.rows_after(0)

    def _name(self, person: Person, kind: int, value: str, raw: bytes, key: bytes, bucket: int) -> Name:  # noqa: PLR0917
        user_id, command = person.id, person.command
        digest = xxh3_128_digest(key, self._seed)
        # the same as `stream_of_login_name`
        stream = digest[:6] + _TWO_BYTES[bucket] + _BYTE[digest[8] | 0xC0] + digest[9:]
        return Name(
            person,
            kind,
            raw,
            bucket,
            stream,
            *_name_events(kind, value, user_id, command, stream, bucket, 0),
            rows.name_row(user_id, bucket, kind, raw),
            rows.reserved_tail(command, bucket, kind, raw),
        )

    def _new(self, line: int, bucket: int) -> Person:
        command = self._command(line, 1)
        noise = int.from_bytes(command[:8], "big") & _NOISE
        return Person(line, _id(self._time | bucket, 1 << 63 | noise), bucket, command)

    def _command(self, line: int, attempt: int) -> bytes:
        return xxh3_128_digest(b"%b%d/%d" % (self._key, line, attempt))

    def _rows_of(self, person: Person) -> tuple[bytes, ...]:
        found = []
        for version, (number, schema, data) in enumerate(person.data, 1):
            found.append(
                rows.correlated_event_tail(
                    person.id,
                    version,
                    person.bucket,
                    number,
                    schema,
                    person.command,
                    self._correlation,
                    data,
                    person.secret if version == 1 else None,
                )
            )
        return tuple(found)
