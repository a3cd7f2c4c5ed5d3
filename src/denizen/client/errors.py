"""What can go wrong, as exceptions: one for each code of a problem, all below `Problem`.

A code that this version does not know (a newer gateway's) is a plain `Problem` with that code. They are part of the
tree of `denizen.errors`, so the command line shows them like its own.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from denizen.errors import DenizenError


class Problem(DenizenError):
    """The request failed. `facts` has all members of the problem, `request_id` names it in the gateway's log."""

    code, status, title = "unknown_problem", 500, "Request failed"

    @property
    def request_id(self) -> str | None:
        """The id of the request that failed last."""
        return self.facts.get("request_id")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What is wrong, by field: `field`, `code` and `detail` of each."""
        return self.facts.get("errors") or []


class Unreachable(Problem):
    """No gateway answers at this address; nothing was changed."""

    code, status, title, retryable = "unreachable", 503, "No answer", True


class OutcomeUnknown(Problem):
    """The write may or may not have happened; `facts["idempotency_key"]` repeats it safely."""

    code, status, title, retryable = "outcome_unknown", 503, "Outcome unknown", True


class UserNotFound(Problem):
    """No such user."""

    code, status, title = "user_not_found", 404, "No such user"


class UserDeleted(Problem):
    """The user was deleted; its history remains."""

    code, status, title = "user_deleted", 410, "User deleted"


class UserErased(Problem):
    """The user was erased: its personal data are destroyed, in its history too."""

    code, status, title = "user_erased", 410, "User erased"


class ErasureNotFound(Problem):
    """The user was not erased, so that there is no certificate of it."""

    code, status, title = "erasure_not_found", 404, "Not erased"


class LoginNameTaken(Problem):
    """Another user has this login name; `facts["kind"]` says which."""

    code, status, title = "login_name_taken", 409, "Login name taken"


class VersionConflict(Problem):
    """The user is at another version than expected."""

    code, status, title = "version_conflict", 412, "Version conflict"


class WrongStatus(Problem):
    """The user's status does not allow this."""

    code, status, title = "wrong_status", 409, "Not possible in this status"


class Invalid(Problem):
    """The input breaks a rule; `errors` says which, by field."""

    code, status, title = "invalid", 422, "Invalid input"


class IdempotencyKeyReused(Problem):
    """The idempotency key was used for another request."""

    code, status, title = "idempotency_key_reused", 422, "Idempotency key reused"


class Unauthenticated(Problem):
    """No API key, or not a valid one."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class Forbidden(Problem):
    """The API key lacks the scope."""

    code, status, title = "forbidden", 403, "Not allowed"


class SearchTooBroad(Problem):
    """The search would take too long."""

    code, status, title = "search_too_broad", 422, "Search too broad"


class RateLimited(Problem):
    """The key's rate is used up."""

    code, status, title, retryable = "rate_limited", 429, "Too many requests", True


class Unavailable(Problem):
    """A server behind the gateway does not answer; nothing was changed."""

    code, status, title, retryable = "unavailable", 503, "Temporarily unavailable", True


class Overloaded(Problem):
    """The gateway has too much to do; nothing was changed."""

    code, status, title, retryable = "overloaded", 503, "Overloaded", True


class KeyNotFound(Problem):
    """No such API key."""

    code, status, title = "key_not_found", 404, "No such API key"


class ShardNotFound(Problem):
    """No such shard."""

    code, status, title = "shard_not_found", 404, "No such shard"


class Refused(Problem):
    """The control plane refuses; `facts["reason"]` says why in a stable word."""

    code, status, title = "refused", 409, "Refused"


class ReplayRefused(Problem):
    """The read models are not in the state that this needs."""

    code, status, title = "replay_refused", 409, "Not possible as things are"


_BY_CODE = {kind.code: kind for kind in Problem.__subclasses__()}


def problem_from(status: int, raw: bytes) -> Problem:
    """The exception for a reply that is no success, whatever its body is."""
    try:
        document = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    return problem_of(document, status)


def problem_of(document: Mapping[str, Any], status: int) -> Problem:
    """The exception for a problem document."""
    code = document.get("code", "unknown_problem")
    detail = document.get("detail") or f"the gateway answered {status} without saying why"
    problem = _BY_CODE.get(code, Problem)(detail, **document)
    problem.code, problem.status = code, status
    problem.retryable = bool(document.get("retryable", status in (502, 503, 504)))
    return problem
