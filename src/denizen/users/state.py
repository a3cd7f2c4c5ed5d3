"""The write model of one user: what the fold of its events gives.

`User` has neither id nor version nor times: those belong to the stream and to the row that keeps it. It is stored as a
MessagePack array, so new fields are only ever added at the end, with a default; old rows then still decode.
"""

from enum import IntEnum
from typing import Any

from msgspec import Struct, field

from .login_names import LoginName, LoginNameKind, normalise_email, normalise_username


class Status(IntEnum):
    """Where a user is in its life. The numbers are stored."""

    ACTIVE = 1
    SUSPENDED = 2
    DELETED = 3
    ERASED = 4

    @property
    def word(self) -> str:
        """The status as the API says it: "active", "suspended", "deleted" or "erased"."""
        return self.name.lower()

    @property
    def gone(self) -> bool:
        """Whether the user is no more: deleted, or even erased."""
        return self >= Status.DELETED


class Name(Struct, frozen=True, gc=False):
    """A person's name in parts; each is optional, for not everyone has both."""

    given: str | None = None
    family: str | None = None


class User(Struct, frozen=True, array_like=True, gc=False):
    """One user's state.

    `email` and `username` are as given (trimmed, NFC), for display; `phone` is in E.164. `password` is a hash string
    that names its own algorithm (see passwords.py), never a password.
    """

    status: Status
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


def login_names(user: User, kinds: frozenset[LoginNameKind]) -> tuple[LoginName, ...]:
    """The user's login names of these kinds, normalised, always in the order email, username, phone.

    One who is deleted or erased has none.
    """
    names = []
    if user.email is not None and LoginNameKind.EMAIL in kinds:
        names.append(LoginName(LoginNameKind.EMAIL, normalise_email(user.email)))
    if user.username is not None and LoginNameKind.USERNAME in kinds:
        names.append(LoginName(LoginNameKind.USERNAME, normalise_username(user.username)))
    if user.phone is not None and LoginNameKind.PHONE in kinds:
        names.append(LoginName(LoginNameKind.PHONE, user.phone))
    return tuple(names)
