"""One user as a line of an export: the public fields with id, version and times; the import takes the same lines."""

import csv
import io
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from denizen.users.public import to_public
from denizen.users.state import Name, User

_encode: Final = msgspec.json.Encoder().encode

COLUMNS: Final = (
    "id",
    "email",
    "username",
    "phone",
    "name.given",
    "name.family",
    "display_name",
    "locale",
    "country",
    "time_zone",
    "picture_url",
    "attributes",
    "status",
    "has_password",
    "version",
    "created_at",
    "updated_at",
)

ToLine = Callable[..., bytes]  # of id, version, created at, updated at, user


def ndjson_line(*, passwords: bool) -> ToLine:
    """How a user becomes a line of NDJSON."""

    def line(user_id: UUID, version: int, created_at: datetime, updated_at: datetime, user: User) -> bytes:
        fields = _fields(to_public(user))
        times: dict[str, Any] = {"version": version, "created_at": created_at, "updated_at": updated_at}
        if passwords:
            times["password_hash"] = user.password
        return _encode({"id": user_id, **fields, **times}) + b"\n"

    return line


def csv_line(*, passwords: bool) -> ToLine:
    """How a user becomes a record of CSV. What a field has not is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")

    def line(user_id: UUID, version: int, created_at: datetime, updated_at: datetime, user: User) -> bytes:
        name = user.name or Name()
        values = [
            str(user_id),
            user.email,
            user.username,
            user.phone,
            name.given,
            name.family,
            user.display_name,
            user.locale,
            user.country,
            user.time_zone,
            user.picture_url,
            _encode(user.attributes).decode() if user.attributes else None,
            user.status.word,
            "true" if user.password is not None else "false",
            version,
            created_at.isoformat(),
            updated_at.isoformat(),
        ]
        if passwords:
            values.append(user.password)
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(values)
        return buffer.getvalue().encode()

    return line


def csv_header(*, passwords: bool) -> bytes:
    """The first line of CSV."""
    return ",".join((*COLUMNS, "password_hash") if passwords else COLUMNS).encode() + b"\n"


def _fields(view: Struct) -> dict[str, Any]:
    return {name: getattr(view, name) for name in view.__struct_fields__}
