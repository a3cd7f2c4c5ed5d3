"""Rows in the format of PostgreSQL's binary COPY, packed by hand: a third of the time that a generic encoder takes.

What is only known under the lock (the sequence and the moment) stands first in a row, so that everything behind it, the
tail, is packed beforehand and the rows are completed by one concatenation. The column lists below are in that order.
See "Binary Format" of COPY in PostgreSQL's manual.
"""

from struct import Struct
from typing import Final

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

# fmt: off
COLUMNS: Final = {
    "events": (
        "sequence", "recorded_at", "stream", "version", "bucket", "type", "schema", "command_id", "correlation_id",
        "actor", "data", "secret",
    ),
    "users": ("created_at", "updated_at", "id", "version", "bucket", "status", "document"),
    "login_names": ("user_id", "bucket", "kind", "value"),
    "login_names_unsettled": ("since", "reservation", "bucket", "kind", "state", "value"),
}
# fmt: on

ACTOR: Final = b"import"
RESERVED: Final = b"reserved"

event_head: Final = Struct(">hiqiq").pack
_correlated_event_tail: Final = Struct(f">i16siiihihihi16si16si{len(ACTOR)}si").pack
_event_tail: Final = Struct(f">i16siiihihihi16sii{len(ACTOR)}si").pack
_user_tail: Final = Struct(">i16siiihihi").pack
_name: Final = Struct(">hi16sihihi").pack
_reserved: Final = Struct(f">hiqi16sihihi{len(RESERVED)}si").pack
_two_moments: Final = Struct(">hiqiq").pack
_length: Final = Struct(">i").pack
_NULL: Final = _length(-1)
_COMMAND_AT: Final = Struct(">i16siiihihihi").size


def event_tail(  # noqa: PLR0917  a row's columns, in their order
    stream: bytes, version: int, bucket: int, number: int, schema: int, command: bytes, data: bytes,
    secret: bytes | None,
) -> bytes:  # fmt: skip
    """A row of `events` behind its sequence and moment; `number` is that of the event's type."""
    head = _event_tail(
        16, stream, 4, version, 2, bucket, 2, number, 2, schema, 16, command, -1, len(ACTOR), ACTOR, len(data)
    )
    return head + data + (_NULL if secret is None else _length(len(secret)) + secret)


def correlated_event_tail(  # noqa: PLR0917
    stream: bytes, version: int, bucket: int, number: int, schema: int, command: bytes, correlation: bytes, data: bytes,
    secret: bytes | None,
) -> bytes:  # fmt: skip
    """The same with a correlation id."""
    head = _correlated_event_tail(
        16, stream, 4, version, 2, bucket, 2, number, 2, schema, 16, command, 16, correlation, len(ACTOR), ACTOR,
        len(data),
    )  # fmt: skip
    return head + data + (_NULL if secret is None else _length(len(secret)) + secret)


def with_command(tail: bytes, command: bytes) -> bytes:
    """The same event by another command."""
    return tail[:_COMMAND_AT] + command + tail[_COMMAND_AT + 16 :]


def user_tail(user_id: bytes, version: int, bucket: int, status: int, document: bytes) -> bytes:
    """A row of `users` behind its two moments."""
    return _user_tail(16, user_id, 4, version, 2, bucket, 2, status, len(document)) + document


def user_head(moment: int) -> bytes:
    """What every row of `users` of one transaction begins with."""
    return _two_moments(7, 8, moment, 8, moment)


def name_row(user_id: bytes, bucket: int, kind: int, value: bytes) -> bytes:
    """A whole row of `login_names`."""
    return _name(4, 16, user_id, 2, bucket, 2, kind, len(value)) + value


def reserved_row(moment: int, command: bytes, bucket: int, kind: int, value: bytes) -> bytes:
    """A whole row of `login_names_unsettled`: reserved by the user's command."""
    return _reserved(6, 8, moment, 16, command, 2, bucket, 2, kind, len(RESERVED), RESERVED, len(value)) + value
