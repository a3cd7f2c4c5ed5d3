"""The fold is total, and what it gives can be stored and read back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from denizen.users import events
from denizen.users.evolve import evolve, fold
from denizen.users.state import Name, Status, User

from .strategies import user_events, users

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and kind.__module__ == events.__name__]


@given(st.lists(user_events, max_size=12))
def test_no_order_of_events_raises_and_a_deleted_user_stays_empty(history: list[events.UserEvent]) -> None:
    user = None
    gone = None
    for event in history:
        user = evolve(user, event)
        if isinstance(event, events.UserErased | events.DataErased):
            gone = User(Status.ERASED)
        elif isinstance(event, events.UserDeleted) and gone is None:
            gone = User(Status.DELETED)
        assert gone is None or user == gone
    assert fold(history) == user


@given(st.lists(user_events, max_size=12))
def test_a_fold_can_stop_and_go_on_anywhere(history: list[events.UserEvent]) -> None:
    registered = [events.UserRegistered(email="a@example.com"), *history]
    user = fold(registered[: len(registered) // 2 + 1])
    for event in registered[len(registered) // 2 + 1 :]:
        user = evolve(user, event)
    assert user == fold(registered)


def test_nothing_folds_to_nobody() -> None:
    assert fold([]) is None


def test_a_stream_that_does_not_begin_with_a_registration_folds_to_a_deleted_user() -> None:
    assert fold([events.EmailChanged("a@example.com"), events.UserSuspended()]) == User(Status.DELETED)


def test_a_stream_whose_data_were_destroyed_folds_to_an_erased_user_at_each_version() -> None:
    history = [events.DataErased(), events.DataErased(), events.UserErased(1)]
    assert [fold(history[:number]) for number in (1, 2, 3)] == [User(Status.ERASED)] * 3


def test_a_second_registration_changes_nothing() -> None:
    first = events.UserRegistered(email="a@example.com")
    assert fold([first, events.UserRegistered(email="b@example.com")]) == fold([first])


def test_each_event_changes_its_part_and_nothing_else() -> None:
    user = User(Status.ACTIVE, "a@example.com", name=Name("A"), locale="de", attributes={"a": 1, "b": {"c": 2}})
    replace = msgspec.structs.replace
    cases: list[tuple[events.UserEvent, User]] = [
        (events.EmailChanged("b@example.com"), replace(user, email="b@example.com")),
        (events.UsernameChanged("anna"), replace(user, username="anna")),
        (events.PhoneChanged("+491234"), replace(user, phone="+491234")),
        (events.PasswordChanged("hash"), replace(user, password="hash")),
        (events.ProfileChanged(locale=None, country="DE"), replace(user, locale=None, country="DE")),
        (events.AttributesChanged({"b": 3, "d": 4}, ["a"]), replace(user, attributes={"b": 3, "d": 4})),
        (events.UserSuspended(), replace(user, status=Status.SUSPENDED)),
        (events.UserDeleted("asked"), User(Status.DELETED)),
        (events.UserErased(), User(Status.ERASED)),
    ]
    for event, after in cases:
        assert evolve(user, event) == after


@given(users)
def test_a_state_survives_storage(user: User) -> None:
    stored = msgspec.msgpack.encode(user)
    assert msgspec.msgpack.decode(stored, type=User) == user
    assert isinstance(msgspec.msgpack.decode(stored), list)


def test_a_state_of_an_older_release_with_fewer_fields_still_decodes() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([1, "a@example.com"]), type=User) == User(
        Status.ACTIVE, "a@example.com"
    )


def test_the_order_of_the_stored_fields_never_changes() -> None:
    assert User.__struct_fields__[:12] == (
        "status",
        "email",
        "username",
        "phone",
        "name",
        "display_name",
        "locale",
        "country",
        "time_zone",
        "picture_url",
        "attributes",
        "password",
    )


@given(user_events)
def test_an_event_survives_storage_as_a_map(event: events.UserEvent) -> None:
    stored = msgspec.msgpack.encode(event)
    assert msgspec.msgpack.Decoder(type(event)).decode(stored) == event
    assert isinstance(msgspec.msgpack.decode(stored), dict)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_of_defaults_takes_one_byte_and_ignores_fields_of_newer_releases(kind: type[msgspec.Struct]) -> None:
    assert msgspec.msgpack.encode(kind()) == b"\x80"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"later": 1}), type=kind) == kind()


def test_not_changed_and_cleared_are_told_apart_in_storage() -> None:
    cleared = events.ProfileChanged(locale=None)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(cleared)) == {"locale": None}
    assert len(KINDS) == 12
