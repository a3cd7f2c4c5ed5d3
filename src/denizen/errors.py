"""The errors of Denizen: a small closed tree.

Each error has a stable `code` (part of the API: never renamed), says whose fault it is (`status`: 4xx the caller's,
5xx ours), whether the same call may succeed later (`retryable`), and keeps its facts. The HTTP API renders them as RFC
9457 problems; the command line prints them as one line. `denizen.users` and `denizen.raft` stand alone and have
errors of their own, which the edge translates.
"""

from collections.abc import Mapping
from typing import Any


class DenizenError(Exception):
    """Base of every error that a caller may see.

    `facts` are JSON-serialisable details (never secrets, never personal data beyond what the caller sent).
    """

    code: str = "internal"
    status: int = 500
    title: str = "Internal error"
    retryable: bool = False

    def __init__(self, detail: str, /, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts: Mapping[str, Any] = facts


class Invalid(DenizenError):
    """The input breaks a rule; `facts` name the `field` and the `rule`."""

    code, status, title = "invalid", 422, "Invalid input"


class UserNotFound(DenizenError):
    """No user has this id or login name."""

    code, status, title = "user_not_found", 404, "No such user"


class UserDeleted(DenizenError):
    """The user was deleted; its history remains."""

    code, status, title = "user_deleted", 410, "User deleted"


class UserErased(DenizenError):
    """The user was erased: its personal data are destroyed, in its history too."""

    code, status, title = "user_erased", 410, "User erased"


class ErasureNotFound(DenizenError):
    """The user was not erased, so that there is no certificate of it."""

    code, status, title = "erasure_not_found", 404, "Not erased"


class LoginNameTaken(DenizenError):
    """Another user has this login name; `facts` name its `kind`."""

    code, status, title = "login_name_taken", 409, "Login name taken"


class VersionConflict(DenizenError):
    """The stream is not at the expected version; `facts` give `expected` and `actual`."""

    code, status, title = "version_conflict", 412, "Version conflict"


class WrongStatus(DenizenError):
    """The user's status does not allow this command."""

    code, status, title = "wrong_status", 409, "Not possible in this status"


class IdempotencyKeyReused(DenizenError):
    """The idempotency key was used before, for another request."""

    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"


class OutcomeUnknown(DenizenError):
    """The write may or may not have happened: repeat it with the same idempotency key to learn which."""

    code, status, title, retryable = "outcome_unknown", 503, "Outcome unknown", True


class Unavailable(DenizenError):
    """A server that this request needs does not answer; nothing was changed."""

    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True


class Overloaded(DenizenError):
    """A bounded queue is full; nothing was changed."""

    code, status, title, retryable = "overloaded", 503, "Overloaded", True


class Moved(DenizenError):
    """The shard does not own this bucket at this epoch: the map is stale. Routers refresh and retry once."""

    code, status, title, retryable = "moved", 503, "Bucket moved", True


class Refused(DenizenError):
    """The control plane refuses, for a precondition does not hold; `facts` give the `reason`, a stable word."""

    code, status, title = "refused", 409, "Refused"


class ShardNotFound(DenizenError):
    """No shard of this deployment has this name."""

    code, status, title = "shard_not_found", 404, "No such shard"


class Unauthenticated(DenizenError):
    """No API key, or not a valid one."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(DenizenError):
    """The API key lacks the scope that this route needs."""

    code, status, title = "forbidden", 403, "Not allowed"


class SearchTooBroad(DenizenError):
    """The search would take longer than it may: it fits many users, few of them early in its order."""

    code, status, title = "search_too_broad", 422, "Search too broad"


class RateLimited(DenizenError):
    """The API key's rate is used up; `facts` give `retry_after_s`."""

    code, status, title, retryable = "rate_limited", 429, "Too many requests", True


class BadConfiguration(DenizenError):
    """The configuration cannot work; the message names the key and what to do."""

    code, status, title = "bad_configuration", 500, "Bad configuration"


class BadDeployment(DenizenError):
    """The deployment's directory or servers are not in the state this command needs; the message says what to do."""

    code, status, title = "bad_deployment", 500, "Deployment not usable"
