"""From the lines of a window to registrations: NDJSON as it is, CSV by its columns, rows of an export as well."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from denizen import limits
from denizen.users.commands import Registration
from denizen.users.faults import checked, with_all_faults
from denizen.users.rejections import Rejected
from denizen.users.validate import registration_from

# What `denizen export` writes besides a registration. Ids and times are new in a new deployment.
EXPORTED: Final = frozenset({"id", "version", "status", "created_at", "updated_at", "has_password"})
FIELDS: Final = (
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
    "password_hash",
)

Raw = bytes | dict[str, Any]
Row = tuple[int, Raw, bytes]  # line, document, itself


def ndjson_rows(first_line: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number."""
    for line, raw in enumerate(data.split(b"\n"), first_line):
        if raw and not raw.isspace():
            yield line, raw


def csv_rows(
    first_line: int, data: bytes, columns: Sequence[str | None], delimiter: str
) -> Iterator[tuple[int, dict[str, Any] | Rejected, bytes]]:
    """Each record that is not blank: the number of its first line, its document or what is wrong, and itself."""
    csv.field_size_limit(limits.import_line_bytes_max)
    text = data.decode("utf-8", "surrogateescape")
    buffer = io.StringIO(text, newline="")
    reader = csv.reader(buffer, delimiter=delimiter, strict=True)
    while True:
        line = first_line + reader.line_num
        values: list[str] = []
        try:
            values = next(reader)
            if not values or not any(values):
                continue
            yield line, document(columns, values), delimiter.join(values).encode(errors="replace")
        except StopIteration:
            return
        except csv.Error as error:
            raw = _lines_before(text, buffer.tell(), first_line + reader.line_num - line)
            yield line, Rejected("malformed", None, f"the row is not valid CSV: {error}"), raw
        except Rejected as rejected:
            yield line, rejected, delimiter.join(values).encode(errors="replace")


def _lines_before(text: str, end: int, count: int) -> bytes:
    start = end
    for _ in range(count):
        start = text.rfind("\n", 0, max(start - 1, 0)) + 1
    return text[start:end].rstrip("\r\n").encode("utf-8", "surrogateescape")


def document(columns: Sequence[str | None], values: Sequence[str]) -> dict[str, Any]:
    """The JSON document of a CSV record; an empty value is not given."""
    if len(values) != len(columns):
        raise Rejected("malformed", None, f"the row has {len(values)} columns, the header {len(columns)}")
    result: dict[str, Any] = {}
    for field, value in zip(columns, values, strict=True):
        if field is None or not value:
            continue
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise Rejected("text_invalid", field, f"`{field}` is not well-formed UTF-8")
        parent, dot, key = field.partition(".")
        if dot:
            result.setdefault(parent, {})[key] = value
        elif field == "attributes":
            result["attributes"] = _attributes(value) | result.get("attributes", {})
        else:
            result[field] = value
    return result


def registration(raw: Raw) -> tuple[Registration, bool]:
    """The registration of a row and whether the user is suspended (in a row of an export).

    Raises `Rejected` with all faults.
    """
    try:
        return registration_from(raw), False
    except Rejected as rejected:
        if rejected.code != "unknown_field" or rejected.field not in EXPORTED:
            raise with_all_faults(rejected, _exported, raw) from None
    return checked(_exported, plain(raw))


def _exported(fields: dict[str, Any]) -> tuple[Registration, bool]:
    status = fields.get("status", "active")
    if status not in ("active", "suspended"):
        raise Rejected("wrong_value", "status", "`status` must be active or suspended")
    registration = registration_from({name: value for name, value in fields.items() if name not in EXPORTED})
    return registration, status == "suspended"


def plain(raw: Raw) -> dict[str, Any]:
    """The row as a dictionary."""
    return dict(raw) if isinstance(raw, dict) else msgspec.json.decode(raw, type=dict[str, Any])


def _attributes(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise Rejected("wrong_type", "attributes", "`attributes` must be a JSON object") from None
