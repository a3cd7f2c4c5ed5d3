"""Given a state, when a command comes, then these events follow."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from denizen.users import decide
from denizen.users.commands import NamePatch, Registration, UserPatch
from denizen.users.events import (
    AttributesChanged,
    EmailChanged,
    PasswordChanged,
    PhoneChanged,
    ProfileChanged,
    UserDeleted,
    UserEvent,
    UsernameChanged,
    UserReactivated,
    UserRegistered,
    UserSuspended,
)
from denizen.users.evolve import evolve, fold
from denizen.users.login_names import LoginNameKind
from denizen.users.passwords import DUMMY_HASH
from denizen.users.rejections import Rejected
from denizen.users.state import Name, Status, User
from denizen.users.validate import patch_from

from .strategies import ALL_KINDS, patches, registrations, users

EMAIL_ONLY = frozenset({LoginNameKind.EMAIL})
ANNA = User(
    Status.ACTIVE,
    "Anna@example.com",
    "anna",
    country="DE",
    name=Name("Anna", "Ng"),
    attributes={"plan": "free", "n": 1},
)


def folded(user: User | None, events: list[UserEvent]) -> User:
    """The state after these events."""
    for event in events:
        user = evolve(user, event)
    assert user is not None
    return user


def refused(command: Callable[[], object]) -> tuple[str, str | None]:
    """Code and field of the rejection."""
    with pytest.raises(Rejected) as caught:
        command()
    return caught.value.code, caught.value.field


def test_a_registration_becomes_one_event_with_everything() -> None:
    events = decide.register(Registration(email="a@example.com", password_hash="h", attributes={"a": 1}), EMAIL_ONLY)
    assert events == [UserRegistered(email="a@example.com", password="h", attributes={"a": 1})]


@pytest.mark.parametrize("registration", [Registration(), Registration(username="anna", phone="+49301234567")])
def test_a_user_needs_a_login_name_of_an_allowed_kind(registration: Registration) -> None:
    assert refused(lambda: decide.register(registration, EMAIL_ONLY)) == ("login_name_required", None)


def test_the_last_login_name_cannot_be_cleared() -> None:
    patch = UserPatch(email=None)
    assert refused(lambda: decide.change(ANNA, patch, EMAIL_ONLY)) == ("login_name_required", None)
    assert decide.change(ANNA, patch, ALL_KINDS) == [EmailChanged(None)]


def test_a_change_gives_one_event_for_each_thing_that_changes() -> None:
    patch = UserPatch(
        email="anna@example.org",
        username=None,
        phone="030 901820",
        display_name="Anna",
        country="DE",
        attributes={"plan": None, "n": 1, "new": [1]},
    )
    assert decide.change(ANNA, patch, ALL_KINDS) == [
        EmailChanged("anna@example.org"),
        UsernameChanged(None),
        PhoneChanged("+4930901820"),
        ProfileChanged(display_name="Anna"),
        AttributesChanged({"new": [1]}, ["plan"]),
    ]


def test_another_spelling_of_the_same_email_is_a_change_of_what_is_shown() -> None:
    assert decide.change(ANNA, UserPatch(email="anna@Example.com"), EMAIL_ONLY) == [EmailChanged("anna@Example.com")]


def test_a_national_number_is_read_with_the_country_after_the_patch() -> None:
    patch = UserPatch(phone="044 668 18 00", country="CH")
    assert PhoneChanged("+41446681800") in decide.change(ANNA, patch, ALL_KINDS)
    assert refused(lambda: decide.change(ANNA, UserPatch(phone="030 901820", country=None), ALL_KINDS)) == (
        "phone_invalid",
        "phone",
    )


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (NamePatch(given="Ann"), Name("Ann", "Ng")),
        (NamePatch(family=None), Name("Anna", None)),
        (NamePatch(given=None, family=None), None),
        (None, None),
    ],
)
def test_a_name_is_patched_by_part(patch: NamePatch | None, name: Name | None) -> None:
    assert decide.change(ANNA, UserPatch(name=patch), ALL_KINDS) == [ProfileChanged(name=name)]


def test_attributes_are_bounded_after_the_patch_too() -> None:
    big = "x" * 10_000
    user = User(Status.ACTIVE, "a@example.com", attributes={"a": big})
    assert refused(lambda: decide.change(user, UserPatch(attributes={"b": big}), EMAIL_ONLY)) == (
        "attributes_too_large",
        "attributes",
    )
    assert decide.change(user, UserPatch(attributes={"a": None, "b": big}), EMAIL_ONLY)


def test_null_clears_all_attributes() -> None:
    assert decide.change(ANNA, UserPatch(attributes=None), ALL_KINDS) == [AttributesChanged({}, ["plan", "n"])]


def test_one_is_not_true() -> None:
    assert decide.change(ANNA, UserPatch(attributes={"n": True}), ALL_KINDS) == [AttributesChanged({"n": True})]


def test_a_suspended_user_may_be_changed() -> None:
    suspended = folded(ANNA, decide.suspend(ANNA, " fraud? "))
    assert suspended.status is Status.SUSPENDED
    assert decide.change(suspended, UserPatch(display_name="A"), ALL_KINDS) == [ProfileChanged(display_name="A")]
    assert decide.set_password(suspended, None) == []


def test_a_life_from_suspension_to_deletion() -> None:
    assert decide.suspend(ANNA, " fraud? ") == [UserSuspended("fraud?")]
    suspended = folded(ANNA, decide.suspend(ANNA, None))
    assert refused(lambda: decide.suspend(suspended, None)) == ("wrong_status", None)
    assert decide.reactivate(suspended, "cleared") == [UserReactivated("cleared")]
    assert refused(lambda: decide.reactivate(ANNA, None)) == ("wrong_status", None)
    assert folded(suspended, decide.reactivate(suspended, None)) == ANNA
    for user in (ANNA, suspended):
        assert decide.delete(user, "asked for") == [UserDeleted("asked for")]
        assert folded(user, decide.delete(user, None)) == User(Status.DELETED)


COMMANDS: list[Callable[[User], Any]] = [
    lambda user: decide.change(user, UserPatch(), ALL_KINDS),
    lambda user: decide.change(user, UserPatch(display_name="A"), ALL_KINDS),
    lambda user: decide.set_password(user, None),
    lambda user: decide.suspend(user, None),
    lambda user: decide.reactivate(user, None),
    lambda user: decide.delete(user, None),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_deleted_user_refuses_everything(command: Callable[[User], Any]) -> None:
    assert refused(lambda: command(User(Status.DELETED))) == ("wrong_status", None)


@pytest.mark.parametrize("reason", ["x" * 501, "a\0b", "two\nlines"])
@pytest.mark.parametrize("command", [decide.suspend, decide.delete])
def test_a_reason_is_bounded_plain_text(command: Callable[[User, str], Any], reason: str) -> None:
    assert refused(lambda: command(ANNA, reason))[1] == "reason"


def test_a_password_hash_is_checked_and_the_same_one_changes_nothing() -> None:
    assert decide.set_password(ANNA, DUMMY_HASH) == [PasswordChanged(DUMMY_HASH)]
    assert decide.set_password(folded(ANNA, [PasswordChanged(DUMMY_HASH)]), DUMMY_HASH) == []
    assert refused(lambda: decide.set_password(ANNA, "hunter2")) == ("password_hash_invalid", "password_hash")


@given(registrations)
def test_the_fold_of_a_registration_is_the_registered_user(registration: Registration) -> None:
    user = fold(decide.register(registration, ALL_KINDS))
    assert user is not None
    assert user.status is Status.ACTIVE
    for field in Registration.__struct_fields__:
        assert getattr(user, "password" if field == "password_hash" else field) == getattr(registration, field)


@given(users, patches)
def test_the_same_patch_again_changes_nothing(user: User, patch: UserPatch) -> None:
    changed = folded(user, decide.change(user, patch, ALL_KINDS))
    assert decide.change(changed, patch, ALL_KINDS) == []


@given(users, patches)
def test_deciding_and_folding_gives_the_patched_state(user: User, patch: UserPatch) -> None:
    changed = folded(user, decide.change(user, patch, ALL_KINDS))
    for field in ("email", "username", "phone", "display_name", "locale", "country", "time_zone", "picture_url"):
        given_value = getattr(patch, field)
        expected = getattr(user, field) if field not in _given(patch) else given_value
        assert getattr(changed, field) == expected
    assert changed.status is user.status
    assert changed.password == user.password


@given(users)
def test_a_patch_of_nothing_changes_nothing(user: User) -> None:
    assert decide.change(user, patch_from(b"{}"), ALL_KINDS) == []


def _given(patch: UserPatch) -> set[str]:
    """The fields that the patch mentions."""
    return {field for field in UserPatch.__struct_fields__ if getattr(patch, field) is not UserPatch().email}
