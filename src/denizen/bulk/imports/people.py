"""From a registration to the rows it becomes: ids, buckets, encoded events and state.

All ids follow from the import's key and the line number, so a resumed import makes the very same ones and recognises
what it did before. Nothing of them can be guessed without the key. A command that was given up by the sweeper can
never be done any more; the next attempt has another command id and the same user id.
"""

from collections.abc import Iterable, Sequence
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
from denizen.users.events import UserEvent
from denizen.users.evolve import fold
from denizen.users.login_names import LoginNameKind

_RESERVE, _CONFIRM = 1, 2  # as in service/login_names.py: a step's command id is the reservation's xor this
_NOISE: Final = (1 << 62) - 1
_id: Final = Struct(">QQ").pack


def _kind_of(event: Any) -> tuple[int, int]:
    number, schema, _ = codec.encode(event)
    return number, schema


_BYTE: Final = [bytes((value,)) for value in range(256)]
_TWO_BYTES: Final = [(0x8000 | bucket).to_bytes(2, "big") for bucket in range(BUCKETS)]
_NIL: Final = UUID(int=0)
_RESERVED: Final = _kind_of(LoginNameReserved(1, _NIL, _NIL))
_CONFIRMED: Final = _kind_of(LoginNameConfirmed(1, _NIL, _NIL))


def _around_ids(kind: int) -> tuple[bytes, bytes]:
    before, between, _ = codec.encode(LoginNameConfirmed(kind, _NIL, _NIL))[2].split(_NIL.bytes)
    return before, between


# The data of both events without their two ids: putting these in is quicker than encoding, and each name has both.
_AROUND_IDS: Final = {kind.value: _around_ids(kind.value) for kind in LoginNameKind}


class Person(msgspec.Struct, gc=False, eq=False):
    """One accepted line: a user to be, its rows, and its names in its own bucket."""

    line: int
    id: bytes
    bucket: int
    command: bytes
    attempt: int = 1
    events: tuple[bytes, ...] = ()  # rows, without sequence and moment
    user: bytes = b""  # row, without its moments
    home: tuple[tuple[int, bytes], ...] = ()
    fate: Fate | None = None


class Name(msgspec.Struct, gc=False, eq=False):
    """A login name in another bucket than its user's, and the event that reserves it.

    The event is packed while everything is at hand (and in the processor's cache), for a name that never had events;
    `event_after` packs it again for one that had some, or whose person has another command by now.
    """

    person: Person
    kind: int
    value: bytes
    bucket: int
    stream: bytes
    reserving: bytes = b""  # row, without sequence and moment
    version: int = 0  # of its stream, before it is reserved
    reserved: bool = False

    def event_after(self, version: int) -> None:
        """Pack the event for a stream that is at this version."""
        self.version = version
        secret = seal_name(self.stream, self.value.decode())
        self.reserving = self._event(version + 1, _RESERVED, self.reserving_command(), secret)

    def confirming(self) -> bytes:
        """The event that confirms it: row, without sequence and moment."""
        return self._event(self.version + 2, _CONFIRMED, _step_id(self.person.command, _CONFIRM), None)

    def reserving_command(self) -> bytes:
        """The command id of the event that reserves it."""
        return _step_id(self.person.command, _RESERVE)

    def _event(self, version: int, kind: tuple[int, int], command: bytes, secret: bytes | None) -> bytes:
        person = self.person
        before, between = _AROUND_IDS[self.kind]
        data = b"".join((before, person.id, between, person.command))
        return rows.event_tail(self.stream, version, self.bucket, *kind, command, data, secret)


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
            else:
                digest = xxh3_128_digest(key, self._seed)
                # the same as `stream_of_login_name`
                stream = digest[:6] + _TWO_BYTES[bucket] + _BYTE[digest[8] | 0xC0] + digest[9:]
                name = Name(person, kind, raw, bucket, stream)
                name.event_after(0)
                names.append(name)
        if person is None:
            raise Invalid("a registration needs a login name")
        person.events = self._rows_of(person, events)
        person.user = rows.user_tail(person.id, len(events), person.bucket, user.status.value, encode_state(user))
        return person, names

    def again(self, person: Person, names: Iterable[Name]) -> None:
        """Give the person's command another id: the one it had was given up and can never be done."""
        person.attempt += 1
        person.command = self._command(person.line, person.attempt)
        person.events = tuple(rows.with_command(event, person.command) for event in person.events)
        for name in names:
            if name.person is person:
                name.event_after(0)

    def _new(self, line: int, bucket: int) -> Person:
        command = self._command(line, 1)
        noise = int.from_bytes(command[:8], "big") & _NOISE
        return Person(line, _id(self._time | bucket, 1 << 63 | noise), bucket, command)

    def _command(self, line: int, attempt: int) -> bytes:
        return xxh3_128_digest(b"%b%d/%d" % (self._key, line, attempt))

    def _rows_of(self, person: Person, events: Sequence[UserEvent]) -> tuple[bytes, ...]:
        stream, bucket, command = person.id, person.bucket, person.command
        secret, cipher = new_key(stream)
        found = []
        for version, event in enumerate(events, 1):
            number, schema, data = codec.encode(event)
            data = seal(cipher, stream, version, number, schema, data)
            first = secret if version == 1 else None
            found.append(
                rows.correlated_event_tail(
                    stream, version, bucket, number, schema, command, self._correlation, data, first
                )
            )
        return tuple(found)
