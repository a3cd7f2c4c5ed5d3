"""From state and command to events: the rules of a user's life, as pure functions.

| command | active | suspended | deleted | erased |
| --- | --- | --- | --- | --- |
| change, set_password | yes | yes: whoever administers users must be able to correct a suspended one | no | no |
| suspend | yes | no | no | no |
| reactivate | no | yes | no | no |
| delete | yes | yes | no | no |
| erase | yes | yes | yes | changes nothing |

"No" is `Rejected` with code wrong_status. An empty list of events means that the command is allowed and changes
nothing. Commands are valid input already (validate.py); what depends on the state is checked here. That a login name
is unique is not: one user cannot know of the others.
"""

from typing import TypeVar

from msgspec import UNSET, UnsetType

from .attributes import check_size, difference, merge
from .commands import NamePatch, Registration, UserPatch
from .events import (
    AttributesChanged,
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
from .limits import reason_chars_max
from .login_names import LoginNameKind, normalise_phone
from .passwords import check_hash
from .rejections import Rejected
from .state import Name, Status, User
from .text import clean

T = TypeVar("T")


def register(registration: Registration, kinds: frozenset[LoginNameKind]) -> list[UserEvent]:
    """A new user, with at least one login name of these kinds."""
    _require_login_name(registration.email, registration.username, registration.phone, kinds)
    return [
        UserRegistered(
            registration.email,
            registration.username,
            registration.phone,
            registration.name,
            registration.display_name,
            registration.locale,
            registration.country,
            registration.time_zone,
            registration.picture_url,
            registration.attributes,
            registration.password_hash,
        )
    ]


def change(user: User, patch: UserPatch, kinds: frozenset[LoginNameKind]) -> list[UserEvent]:
    """The patched user, active or suspended: one event for each login name, the profile and the attributes, if changed.

    A national phone number is read with the user's country as it is after the patch. The user keeps at least one login
    name of these kinds, and the attributes must be in bounds after the patch.
    """
    _require(user, "changed", Status.ACTIVE, Status.SUSPENDED)
    email, username = _patched(user.email, patch.email), _patched(user.username, patch.username)
    phone = patch.phone
    if isinstance(phone, str):
        phone = normalise_phone(phone, _patched(user.country, patch.country))
    phone = _patched(user.phone, phone)
    _require_login_name(email, username, phone, kinds)
    events: list[UserEvent] = []
    if email != user.email:
        events.append(EmailChanged(email))
    if username != user.username:
        events.append(UsernameChanged(username))
    if phone != user.phone:
        events.append(PhoneChanged(phone))
    return events + _profile_changed(user, patch) + _attributes_changed(user, patch)


def set_password(user: User, password_hash: str | None) -> list[UserEvent]:
    """The user's password has this hash from now on; None takes the password away. Active or suspended."""
    _require(user, "given a password", Status.ACTIVE, Status.SUSPENDED)
    if password_hash is not None:
        check_hash(password_hash)
    return [] if password_hash == user.password else [PasswordChanged(password_hash)]


def suspend(user: User, reason: str | None) -> list[UserEvent]:
    """An active user may not use the application for now."""
    _require(user, "suspended", Status.ACTIVE)
    return [UserSuspended(_reason(reason))]


def reactivate(user: User, reason: str | None) -> list[UserEvent]:
    """A suspended user is active again."""
    _require(user, "reactivated", Status.SUSPENDED)
    return [UserReactivated(_reason(reason))]


def delete(user: User, reason: str | None) -> list[UserEvent]:
    """An active or suspended user is deleted, for good."""
    _require(user, "deleted", Status.ACTIVE, Status.SUSPENDED)
    return [UserDeleted(_reason(reason))]


def erase(user: User, login_names: int) -> list[UserEvent]:
    """A user's personal data are destroyed, for good; `login_names` is how many it still has."""
    return [] if user.status is Status.ERASED else [UserErased(login_names)]


def _profile_changed(user: User, patch: UserPatch) -> list[UserEvent]:
    event = ProfileChanged(
        _changed(user.name, _patched_name(user.name, patch.name)),
        _changed(user.display_name, patch.display_name),
        _changed(user.locale, patch.locale),
        _changed(user.country, patch.country),
        _changed(user.time_zone, patch.time_zone),
        _changed(user.picture_url, patch.picture_url),
    )
    return [] if event == ProfileChanged() else [event]


def _attributes_changed(user: User, patch: UserPatch) -> list[UserEvent]:
    if patch.attributes is UNSET:
        return []
    attributes = merge(user.attributes, patch.attributes or {}) if patch.attributes is not None else {}
    check_size(attributes)
    changed, removed = difference(user.attributes, attributes)
    return [AttributesChanged(changed, removed)] if changed or removed else []


def _patched_name(name: Name | None, patch: NamePatch | UnsetType | None) -> Name | None:
    if patch is None:
        return None
    if patch is UNSET:
        return name
    before = name or Name()
    after = Name(_patched(before.given, patch.given), _patched(before.family, patch.family))
    return None if after == Name() else after


def _patched(before: T, value: T | UnsetType) -> T:
    return before if isinstance(value, UnsetType) else value


def _changed(before: T, value: T | UnsetType) -> T | UnsetType:
    return UNSET if value == before else value


def _require(user: User, what: str, *allowed: Status) -> None:
    if user.status not in allowed:
        raise Rejected("wrong_status", None, f"a user who is {user.status.word} cannot be {what}")


def _require_login_name(
    email: str | None, username: str | None, phone: str | None, kinds: frozenset[LoginNameKind]
) -> None:
    if (
        (email is None or LoginNameKind.EMAIL not in kinds)
        and (username is None or LoginNameKind.USERNAME not in kinds)
        and (phone is None or LoginNameKind.PHONE not in kinds)
    ):
        words = " or ".join(f"`{kind.word}`" for kind in sorted(kinds))
        raise Rejected("login_name_required", None, f"a user must have a login name: {words}")


def _reason(reason: str | None) -> str | None:
    return None if reason is None else clean("reason", reason, reason_chars_max) or None
