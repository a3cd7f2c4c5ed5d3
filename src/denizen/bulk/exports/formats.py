"""What an exported user looks like: an NDJSON line or a CSV row, both of which `denizen import` takes."""

import csv
import io
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from denizen.users.public import PublicUser, to_public
from denizen.users.state import Name, User

CSV_COLUMNS: Final = (
    "id", "version", "created_at", "updated_at", "status", "email", "username", "phone", "name.given", "name.family",
    "display_name", "locale", "country", "time_zone", "picture_url", "attributes",
)  # fmt: skip
_encode: Final = msgspec.json.Encoder().encode


class ExportedUser(PublicUser, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """The public view of a user, with its id, version and times, and its password's hash if that was asked for."""

    id: UUID
    version: int
    created_at: datetime
    updated_at: datetime
    password_hash: str | None = None


class Format(Protocol):
    """From users to bytes."""

    def head(self) -> bytes:
        """What comes before the first user."""
        ...

    def user(self, identifier: UUID, version: int, created_at: datetime, updated_at: datetime, user: User) -> bytes:
        """One user, with its line end."""
        ...


class Ndjson:
    """One JSON object a line."""

    def __init__(self, *, with_password_hashes: bool) -> None:
        self._with_hashes = with_password_hashes

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def user(self, identifier: UUID, version: int, created_at: datetime, updated_at: datetime, user: User) -> bytes:
        """The user's line."""
        public = to_public(user)
        values = {name: getattr(public, name) for name in PublicUser.__struct_fields__}
        exported = ExportedUser(
            **values,
            id=identifier,
            version=version,
            created_at=created_at,
            updated_at=updated_at,
            password_hash=user.password if self._with_hashes else None,
        )
        return _encode(exported) + b"\n"


class Csv:
    """A header, and a row a user; attributes as JSON, what is missing as nothing."""

    def __init__(self, *, with_password_hashes: bool, delimiter: str = ",") -> None:
        self._with_hashes = with_password_hashes
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n")

    def head(self) -> bytes:
        """The header."""
        return self._row([*CSV_COLUMNS, *(["password_hash"] if self._with_hashes else [])])

    def user(self, identifier: UUID, version: int, created_at: datetime, updated_at: datetime, user: User) -> bytes:
        """The user's row."""
        name = user.name or Name()
        row: list[Any] = [
            identifier, version, created_at.isoformat(), updated_at.isoformat(), user.status.word, user.email,
            user.username, user.phone, name.given, name.family, user.display_name, user.locale, user.country,
            user.time_zone, user.picture_url, _encode(user.attributes).decode() if user.attributes else None,
        ]  # fmt: skip
        return self._row([*row, *([user.password] if self._with_hashes else [])])

    def _row(self, values: list[Any]) -> bytes:
        self._writer.writerow(values)
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text.encode()
