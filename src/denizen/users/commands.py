"""What can be asked of a user: valid, normalised input for the deciders. validate.py makes these from JSON."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from .state import Name


class Registration(Struct, frozen=True, gc=False):
    """A new user. At least one login name must be of a kind that the deployment uses (the decider checks it)."""

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
    password_hash: str | None = None


class RegistrationRequest(Struct, frozen=True, gc=False):
    """A registration and the plain password that came with it, which is hashed elsewhere and never part of an event."""

    registration: Registration
    password: str | None = None


class NamePatch(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A change of a name's parts: UNSET leaves one as it is, None clears it."""

    given: str | UnsetType | None = UNSET
    family: str | UnsetType | None = UNSET


class UserPatch(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A change of a user, with the meaning of a JSON merge patch (RFC 7396).

    UNSET leaves a field as it is, None clears it. `phone` may be a national number: the decider reads it with the
    user's country. `attributes` is a merge patch of the attributes, at any depth.
    """

    email: str | UnsetType | None = UNSET
    username: str | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    name: NamePatch | UnsetType | None = UNSET
    display_name: str | UnsetType | None = UNSET
    locale: str | UnsetType | None = UNSET
    country: str | UnsetType | None = UNSET
    time_zone: str | UnsetType | None = UNSET
    picture_url: str | UnsetType | None = UNSET
    attributes: dict[str, Any] | UnsetType | None = UNSET
