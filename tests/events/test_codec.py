"""The codec: whatever was ever stored is read for ever.

`corpus/events.ndjson` holds stored events with what they mean: type, schema, data in hex. Add a line for every new
type and schema version; never change or remove one.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Struct

from denizen.events.codec import EVENT_TYPES, Codec, EventType, UnknownEvent, codec
from denizen.events.login_name_events import LoginNameReserved
from denizen.users.events import EmailChanged, ProfileChanged, UserRegistered

_LINES = (Path(__file__).parent / "corpus/events.ndjson").read_bytes().splitlines()
CORPUS = [msgspec.json.decode(line) for line in _LINES]


@pytest.mark.parametrize("stored", CORPUS, ids=lambda stored: f"{stored['name']}-{stored['schema']}")
def test_what_was_ever_stored_is_read_for_ever(stored: dict[str, Any]) -> None:
    event = codec.decode(stored["type"], stored["schema"], bytes.fromhex(stored["data"]))
    assert type(event).__name__ == codec.name(stored["type"]) == stored["name"]
    assert msgspec.to_builtins(event) == stored["means"]


def test_the_newest_versions_are_written_as_the_corpus_has_them() -> None:
    newest = {each.number: each.schema for each in EVENT_TYPES}
    for stored in CORPUS:
        number, schema, data = stored["type"], stored["schema"], bytes.fromhex(stored["data"])
        if newest[number] == schema:
            assert codec.encode(codec.decode(number, schema, data)) == (number, schema, data)


def test_the_corpus_has_every_type_and_schema_version() -> None:
    known = {(each.number, schema) for each in EVENT_TYPES for schema in range(1, each.schema + 1)}
    assert {(stored["type"], stored["schema"]) for stored in CORPUS} == known


def test_an_event_with_defaults_takes_one_byte() -> None:
    assert codec.encode(ProfileChanged()) == (2, 1, b"\x80")


class Renamed(Struct, frozen=True):
    """A later `EmailChanged`: the address under another name, and a flag that it did not have."""

    address: str
    verified: bool


AGED = Codec(
    (
        EventType(
            3,
            Renamed,
            (
                lambda document: {"address": document.get("email") or ""},
                lambda document: document | {"verified": False},
            ),
        ),
        EventType(101, LoginNameReserved, (lambda document: document | {"kind": document["kind"] + 1},)),
    )
)


def test_an_old_event_passes_through_every_upcaster_after_its_schema() -> None:
    _, _, first = codec.encode(EmailChanged("ann@example.com"))
    second = msgspec.msgpack.encode({"address": "bob@example.com"})
    assert AGED.decode(3, 1, first) == Renamed("ann@example.com", False)
    assert AGED.decode(3, 2, second) == Renamed("bob@example.com", False)
    number, schema, third = AGED.encode(Renamed("eve@example.com", True))  # type: ignore[arg-type]
    assert (number, schema) == (3, 3)
    assert AGED.decode(number, schema, third) == Renamed("eve@example.com", True)


def test_upcasting_keeps_ids_as_ids() -> None:
    event = LoginNameReserved(1, UUID(int=1), UUID(int=2))
    _, schema, data = codec.encode(event)
    assert AGED.decode(101, schema, data) == LoginNameReserved(2, UUID(int=1), UUID(int=2))


@pytest.mark.parametrize(("number", "schema"), [(99, 1), (0, 1), (3, 2), (3, 0), (3, -1), (12, 1)])
def test_what_a_newer_program_wrote_is_named_not_guessed(number: int, schema: int) -> None:
    with pytest.raises(UnknownEvent, match="upgrade") as caught:
        codec.decode(number, schema, b"\x80")
    assert caught.value.facts["type"] == number


def test_an_unknown_type_has_no_name() -> None:
    with pytest.raises(UnknownEvent):
        codec.name(99)


def test_a_number_or_a_struct_is_listed_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Codec((EventType(1, UserRegistered), EventType(1, EmailChanged)))
    with pytest.raises(ValueError, match="twice"):
        Codec((EventType(1, UserRegistered), EventType(2, UserRegistered)))
