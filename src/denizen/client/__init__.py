"""The Python client of Denizen's HTTP API: async, typed, small.

    async with Client("http://127.0.0.1:8080", key) as client:
        user = await client.create_user(email="ada@example.org")

`client.py` has the operations, `transport.py` sends and repeats, `retrying.py` says when, `errors.py` has an
exception for each code of a problem. The documents are those of the API (`denizen.api.shapes`). See docs/client.md.
"""

from denizen.api.read_side import ChangeDocument, ChangePage, ExplanationDocument, ReplayDocument
from denizen.api.shapes import CreationResult, EventDocument, KeyDocument, LookupResult, PasswordVerdict, WrittenUser
from denizen.api.shapes import UserDocument as User
from denizen.client.client import Client
from denizen.client.errors import (
    Forbidden,
    IdempotencyKeyReused,
    Invalid,
    LoginNameTaken,
    OutcomeUnknown,
    Overloaded,
    Problem,
    RateLimited,
    Refused,
    ShardNotFound,
    Unauthenticated,
    Unavailable,
    Unreachable,
    UserDeleted,
    UserErased,
    UserNotFound,
    VersionConflict,
    WrongStatus,
)
from denizen.client.retrying import RetryPolicy

__all__ = [
    "ChangeDocument",
    "ChangePage",
    "Client",
    "CreationResult",
    "EventDocument",
    "ExplanationDocument",
    "Forbidden",
    "IdempotencyKeyReused",
    "Invalid",
    "KeyDocument",
    "LoginNameTaken",
    "LookupResult",
    "OutcomeUnknown",
    "Overloaded",
    "PasswordVerdict",
    "Problem",
    "RateLimited",
    "Refused",
    "ReplayDocument",
    "RetryPolicy",
    "ShardNotFound",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "User",
    "UserDeleted",
    "UserErased",
    "UserNotFound",
    "VersionConflict",
    "WrittenUser",
    "WrongStatus",
]
