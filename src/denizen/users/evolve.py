"""From state and event to state: a total function.

It holds no rules (those are in decide.py) and never raises, whatever the order of the events: a stored event is a fact.
A deleted user stays deleted, until it is erased: no event can bring personal data back to it. A stream whose events
cannot be read any more (its key was destroyed) folds to an erased user, at each of its versions.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import asdict, replace

from .events import (
    AttributesChanged,
    DataErased,
    EmailChanged,
    PasswordChanged,
    PhoneChanged,
    ProfileChanged,
    UserDeleted,
    UserErased,
    UserEvent,
    UsernameChanged,
    UserReactivated,
    UserRegistered,
    UserSuspended,
)
from .state import Status, User

GONE: Final = User(Status.DELETED)
ERASED: Final = User(Status.ERASED)
_ERASING: Final = (UserErased, DataErased)


def evolve(user: User | None, event: UserEvent) -> User:
    """The state after this event; `user` is None before the first event of the stream."""
    if user is None:
        return _registered(event) if type(event) is UserRegistered else ERASED if type(event) in _ERASING else GONE
    if user.status >= Status.DELETED:  # gone
        return ERASED if type(event) in _ERASING else user
    return _STEPS[type(event)](user, event)


def fold(events: Iterable[UserEvent]) -> User | None:
    """The state after these events, None if there are none."""
    user = None
    for event in events:
        user = evolve(user, event)
    return user


def _registered(event: UserRegistered) -> User:
    return User(
        Status.ACTIVE,
        event.email,
        event.username,
        event.phone,
        event.name,
        event.display_name,
        event.locale,
        event.country,
        event.time_zone,
        event.picture_url,
        event.attributes,
        event.password,
    )


def _profile_changed(user: User, event: ProfileChanged) -> User:
    return replace(user, **{name: value for name, value in asdict(event).items() if value is not UNSET})


def _attributes_changed(user: User, event: AttributesChanged) -> User:
    kept = user.attributes
    if event.removed:
        kept = {key: value for key, value in kept.items() if key not in event.removed}
    return replace(user, attributes=kept | event.changed)


_STEPS: Final[Mapping[type, Callable[[User, Any], User]]] = {
    UserRegistered: lambda user, _event: user,
    ProfileChanged: _profile_changed,
    EmailChanged: lambda user, event: replace(user, email=event.email),
    UsernameChanged: lambda user, event: replace(user, username=event.username),
    PhoneChanged: lambda user, event: replace(user, phone=event.phone),
    PasswordChanged: lambda user, event: replace(user, password=event.password),
    AttributesChanged: _attributes_changed,
    UserSuspended: lambda user, _event: replace(user, status=Status.SUSPENDED),
    UserReactivated: lambda user, _event: replace(user, status=Status.ACTIVE),
    UserDeleted: lambda _user, _event: GONE,
    UserErased: lambda _user, _event: ERASED,
    DataErased: lambda _user, _event: ERASED,
}
