"""What may be asked of the directory."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

SORTS: Final[Mapping[str, str]] = {
    "created": "d.created_at",
    "updated": "d.updated_at",
    "name": "d.name",
    "email": "d.email",
    "username": "d.username",
}


class Place(Struct, frozen=True, array_like=True):
    """Where a page ends: the key that the order stands on, and the user's id."""

    key: str | datetime
    user_id: UUID


class Search(Struct, frozen=True, kw_only=True):
    """What is searched for. All filters must hold; texts are compared in their normal form, attributes as text.

    `name`: words, each the beginning of a word of the name. `sort`: a key of `SORTS`; None: what comes quickest.
    Times are from (inclusive) and before (exclusive).
    """

    limit: int
    name: str | None = None
    email: str | None = None
    username: str | None = None
    status: int | None = None
    country: str | None = None
    attributes: tuple[str, ...] = ()  # terms, see `model.attribute_term`
    created_from: datetime | None = None
    created_before: datetime | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    sort: str | None = None
    descending: bool = False
    after: Place | None = None


def order_of(wanted: Search) -> str | None:
    """The order asked for, else the one that the filter itself gives; None: that of the terms."""
    if wanted.sort is not None or wanted.name is not None:
        return wanted.sort
    if wanted.email is not None:
        return "email"
    return "created" if wanted.username is None else "username"
