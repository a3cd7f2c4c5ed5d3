"""Events to bytes and back, for ever.

Each event type has a number that is never reused and a schema version. An event is stored as MessagePack under the
newest version of its type. An older version is read through upcasters: each takes the raw document of version n to
that of n + 1. A golden corpus in the tests holds every version ever written.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import msgspec

from denizen.errors import DenizenError
from denizen.events import login_name_events as names
from denizen.users import events as users

Document = dict[str, Any]
Upcaster = Callable[[Document], Document]
Event = users.UserEvent | names.LoginNameEvent


class UnknownEvent(DenizenError):
    """An event of a type or schema version that this program does not know: a newer one wrote it. Upgrade first."""

    code, title = "unknown_event", "Unknown event"


class EventType(msgspec.Struct, frozen=True):
    """One type of event: its stored number, its struct, and the upcasters from schema 1, 2, … to the newest."""

    number: int
    struct: type
    upcasters: tuple[Upcaster, ...] = ()
    sealed: bool = True  # whether its data are personal, and stored so that they can be destroyed

    @property
    def name(self) -> str:
        """The name that the API and the message bus use."""
        return self.struct.__name__

    @property
    def schema(self) -> int:
        """The newest schema version, the one that is written."""
        return len(self.upcasters) + 1


EVENT_TYPES: Final = (
    EventType(1, users.UserRegistered),
    EventType(2, users.ProfileChanged),
    EventType(3, users.EmailChanged),
    EventType(4, users.UsernameChanged),
    EventType(5, users.PhoneChanged),
    EventType(6, users.PasswordChanged),
    EventType(7, users.AttributesChanged),
    EventType(8, users.UserSuspended),
    EventType(9, users.UserReactivated),
    EventType(10, users.UserDeleted),
    EventType(11, users.UserErased, sealed=False),
    EventType(101, names.LoginNameReserved, sealed=False),  # but for the name itself
    EventType(102, names.LoginNameConfirmed, sealed=False),
    EventType(103, names.LoginNameLeaving, sealed=False),
    EventType(104, names.LoginNameRestored, sealed=False),
    EventType(105, names.LoginNameReleased, sealed=False),
)
NAMES: Final = {each.number: each.name for each in EVENT_TYPES}
ERASED: Final = 11  # numbers of the types after which a stream's secret is destroyed
RELEASED: Final = 105
RESERVED: Final = 101
LOGIN_NAME_EVENTS_FROM: Final = 100  # numbers above belong to streams of login names


class Codec:
    """Encodes and decodes events by a table of types; the table is a parameter so that tests can age one."""

    def __init__(self, types: tuple[EventType, ...] = EVENT_TYPES) -> None:
        self._by_struct = {each.struct: (each.number, each.schema) for each in types}
        self._by_number = {each.number: each for each in types}
        if len(self._by_struct) != len(types) or len(self._by_number) != len(types):
            raise ValueError("an event type or a number is listed twice")
        self._decoders: dict[tuple[int, int], Callable[[bytes], Any]] = {
            (each.number, each.schema): msgspec.msgpack.Decoder(each.struct).decode for each in types
        }
        self._encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self._names = {each.number: each.name for each in types}
        self._sealed = frozenset(each.struct for each in types if each.sealed)

    def encode(self, event: Event) -> tuple[int, int, bytes]:
        """Type number, schema version and data of an event."""
        number, schema = self._by_struct[type(event)]
        return number, schema, self._encode(event)

    def seals(self, event: Event) -> bool:
        """Whether an event's data are personal, so that they are stored sealed."""
        return type(event) in self._sealed

    def decoder(self, number: int, schema: int) -> Callable[[bytes], Event]:
        """What decodes events of one kind, as `decode` does; for whoever has many of them."""
        return self._decoders.get((number, schema)) or partial(self._upcast, number, schema)

    def decode(self, number: int, schema: int, data: bytes) -> Event:
        """The event that was stored so; `UnknownEvent` if this program is older than what wrote it."""
        decode = self._decoders.get((number, schema))
        if decode is not None:
            return cast(Event, decode(data))
        return self._upcast(number, schema, data)

    def name(self, number: int) -> str:
        """The name of the event type with this number."""
        return self._names.get(number) or self._type(number).name

    def _type(self, number: int) -> EventType:
        found = self._by_number.get(number)
        if found is None:
            raise UnknownEvent(f"event type {number} is unknown to this version: upgrade it", type=number)
        return found

    def _upcast(self, number: int, schema: int, data: bytes) -> Event:
        event_type = self._type(number)
        if not 1 <= schema < event_type.schema:
            raise UnknownEvent(
                f"{event_type.name} has schema {schema}, this version knows 1 to {event_type.schema}: upgrade it",
                type=number,
                schema=schema,
            )
        document = msgspec.msgpack.decode(data)
        for upcaster in event_type.upcasters[schema - 1 :]:
            document = upcaster(document)
        return cast(Event, self._decoders[number, event_type.schema](self._encode(document)))


codec: Final = Codec()
