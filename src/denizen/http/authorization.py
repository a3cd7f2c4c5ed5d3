"""Who may do what: bearer keys and scopes (RFC 6750).

`admin` implies every scope. A key that is missing, unknown, revoked or malformed is one answer, 401, without saying
which.
"""

from denizen.errors import Forbidden, Unauthenticated
from denizen.service.keys import KeyInfo

ADMIN = "admin"


def bearer_token(authorization: str | None) -> str:
    """The token in the `Authorization` header; `Unauthenticated` if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated("this route needs `Authorization: Bearer <key>`")
    return token


def require_scope(key: KeyInfo, scope: str) -> None:
    """`Forbidden` unless the key has this scope, or `admin`."""
    if scope not in key.scopes and ADMIN not in key.scopes:
        raise Forbidden(f"this key lacks the scope `{scope}`", scope=scope)
