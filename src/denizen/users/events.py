"""What can happen to a user: past tense, one meaning each.

Events are stored for ever. They encode as maps without the fields that have their default, so that a stored event
stays short and a new field costs nothing in the old ones. Which number an event has, which schema version, and how old
versions are read is the business of the event codec, not of the domain.

In `ProfileChanged`, UNSET means "not changed" and None means "cleared".
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from .state import Name


class UserRegistered(Struct, frozen=True, omit_defaults=True, gc=False):
    """A user came into being with these login names and this profile."""

    email: str | None = None
    username: str | None = None
    phone: str | None = None
    name: Name | None = None
    display_name: str | None = None
    locale: str | None = None
    country: str | None = None
    time_zone: str | None = None
    picture_url: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    password: str | None = None


class ProfileChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """Some profile fields have new values; the others are UNSET."""

    name: Name | UnsetType | None = UNSET
    display_name: str | UnsetType | None = UNSET
    locale: str | UnsetType | None = UNSET
    country: str | UnsetType | None = UNSET
    time_zone: str | UnsetType | None = UNSET
    picture_url: str | UnsetType | None = UNSET


class EmailChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """The email is now this one, as given; None: it was removed."""

    email: str | None = None


class UsernameChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """The username is now this one, as given; None: it was removed."""

    username: str | None = None


class PhoneChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """The phone number is now this one, in E.164; None: it was removed."""

    phone: str | None = None


class PasswordChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """The password's hash is now this one; None: the user has no password any more."""

    password: str | None = None


class AttributesChanged(Struct, frozen=True, omit_defaults=True, gc=False):
    """Top-level attributes in `changed` have these whole new values; those in `removed` are gone."""

    changed: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


class UserSuspended(Struct, frozen=True, omit_defaults=True, gc=False):
    """The user may not use the application for now."""

    reason: str | None = None


class UserReactivated(Struct, frozen=True, omit_defaults=True, gc=False):
    """The suspension ended."""

    reason: str | None = None


class UserDeleted(Struct, frozen=True, omit_defaults=True, gc=False):
    """The user is gone: login names, profile, attributes and password are given up. The history remains."""

    reason: str | None = None


class UserErased(Struct, frozen=True, omit_defaults=True, gc=False):
    """The key of the user's personal data was destroyed: the history can no longer be read, only counted.

    `login_names` is how many the user gave up with it. There is nothing personal in this event.
    """

    login_names: int = 0


class DataErased(Struct, frozen=True, gc=False):
    """Stands for an event of any type whose data were destroyed when its user was erased. It is never stored."""


UserEvent = (
    UserRegistered
    | ProfileChanged
    | EmailChanged
    | UsernameChanged
    | PhoneChanged
    | PasswordChanged
    | AttributesChanged
    | UserSuspended
    | UserReactivated
    | UserDeleted
    | UserErased
    | DataErased
)
