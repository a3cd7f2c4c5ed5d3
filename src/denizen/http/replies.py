"""Replies: status, body and header fields, and the few ways to make one."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from denizen.http.etags import etag

Headers = list[tuple[str, str]]

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
# On everything: what we send is not to be sniffed, framed or kept; most of it is personal data.
SECURITY_HEADERS: Final[Headers] = [
    ("server", "denizen"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
]

_JSON_HEADERS: Final[Headers] = [("content-type", JSON)]
encode_json: Final = msgspec.json.Encoder().encode


class Reply(Struct):
    """What goes back. `headers` come before those that every reply has."""

    status: int
    body: bytes
    headers: Headers


def json_reply(document: Any, status: int = 200, headers: Headers | None = None) -> Reply:
    """The document as JSON."""
    return Reply(status, encode_json(document), [*_JSON_HEADERS, *headers] if headers else _JSON_HEADERS)


def text_reply(text: str, content_type: str = "text/plain; charset=utf-8") -> Reply:
    """Plain text."""
    return Reply(200, text.encode(), [("content-type", content_type)])


def empty_reply(status: int = 204, headers: Headers | None = None) -> Reply:
    """No body."""
    return Reply(status, b"", headers or [])


def not_modified(version: int) -> Reply:
    """The client has this version already."""
    return Reply(304, b"", [("etag", etag(version))])
