"""A user as the outside sees it: the HTTP API and exports. Never with the password's hash."""

from typing import Any

from msgspec import Struct

from .state import Name, User


class PublicUser(Struct, frozen=True, gc=False):
    """The view of one user; all fields are always there. `status` is a word, for example "active"."""

    email: str | None
    username: str | None
    phone: str | None
    name: Name | None
    display_name: str | None
    locale: str | None
    country: str | None
    time_zone: str | None
    picture_url: str | None
    attributes: dict[str, Any]
    status: str
    has_password: bool


def to_public(user: User) -> PublicUser:
    """The public view of this state."""
    return PublicUser(
        user.email,
        user.username,
        user.phone,
        user.name,
        user.display_name,
        user.locale,
        user.country,
        user.time_zone,
        user.picture_url,
        user.attributes,
        user.status.word,
        user.password is not None,
    )
