"""The errors of the key-value service: each has a stable code, an HTTP status, and says what to do.

A `KeyValueError` with `retryable` may succeed when repeated as it is. Only `OutcomeUnknown` leaves open whether the
operation happened: repeated in a session (same session and sequence) it is applied once.
"""

from typing import Any


class KeyValueError(Exception):
    """Base of every error that a client of the service may see; `facts` are JSON-serialisable details."""

    code = "internal"
    status = 500
    title = "Internal error"
    retryable = False

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    def problem(self) -> dict[str, Any]:
        """Render as an RFC 9457 problem."""
        return {
            "type": f"urn:denizen:kv:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retryable": self.retryable,
            **self.facts,
        }

    def as_etcd(self) -> tuple[int, str]:
        """Return the gRPC code and the message that a client of etcd's gateway knows this error by."""
        return _ETCD.get(self.code, (2, self.detail))


class Malformed(KeyValueError):
    """The request breaks a rule; the detail names it."""

    code, status, title = "malformed", 400, "Malformed request"


class Unauthenticated(KeyValueError):
    """No token, or not the cluster's."""

    code, status, title = "unauthenticated", 401, "Not authenticated"


class NoSuchRoute(KeyValueError):
    code, status, title = "no_such_route", 404, "No such route"


class TooLarge(KeyValueError):
    code, status, title = "too_large", 413, "Too large"


class LostLease(KeyValueError):
    """The lease ran out or was revoked: take a new one, and do not trust the keys that hung on it."""

    code, status, title = "lost_lease", 404, "Lease lost"


class LeaseExists(KeyValueError):
    code, status, title = "lease_exists", 409, "Lease exists"


class TooManyLeases(KeyValueError):
    code, status, title = "too_many_leases", 503, "Too many leases"


class CompactedRevision(KeyValueError):
    """History before `compacted_revision` is forgotten: read the present, then watch from there."""

    code, status, title = "compacted_revision", 410, "Revision compacted"


class FutureRevision(KeyValueError):
    """The revision does not exist yet."""

    code, status, title = "future_revision", 400, "Revision not reached"


class LostSession(KeyValueError):
    """The session is closed or was pushed out: whether earlier tries were applied cannot be told any more."""

    code, status, title = "lost_session", 410, "Session lost"


class StaleSequence(KeyValueError):
    """A later operation of this session was applied already."""

    code, status, title = "stale_sequence", 409, "Sequence already passed"


class AnswerNotKept(KeyValueError):
    """The request of a session was applied once already; its answer was too large to keep."""

    code, status, title = "answer_not_kept", 409, "Applied before, answer not kept"


class NoLeader(KeyValueError):
    """No leader is known or reachable; the operation was not started."""

    code, status, title, retryable = "no_leader", 503, "No leader", True


class NotAMember(KeyValueError):
    """This node is not, or not any more, a member of the cluster."""

    code, status, title = "not_a_member", 503, "Not a member"


class ConfigurationRefused(KeyValueError):
    """The change of members cannot begin now; the detail says why."""

    code, status, title = "configuration_refused", 409, "Change of members refused"


class OutcomeUnknown(KeyValueError):
    """The write may or may not have happened."""

    code, status, title, retryable = "outcome_unknown", 504, "Outcome unknown", True


class TimedOut(KeyValueError):
    """A read was not confirmed in time; nothing was changed."""

    code, status, title, retryable = "timed_out", 504, "Timed out", True


class Overloaded(KeyValueError):
    """A bounded queue is full; the operation was not started."""

    code, status, title, retryable = "overloaded", 503, "Overloaded", True


class Unavailable(KeyValueError):
    """This node is stopping or has stopped because of an error; ask another one."""

    code, status, title, retryable = "unavailable", 503, "Unavailable", True


_KINDS: tuple[type[KeyValueError], ...] = (
    Malformed,
    Unauthenticated,
    NoSuchRoute,
    TooLarge,
    LostLease,
    LeaseExists,
    TooManyLeases,
    CompactedRevision,
    FutureRevision,
    LostSession,
    StaleSequence,
    AnswerNotKept,
    NoLeader,
    NotAMember,
    ConfigurationRefused,
    OutcomeUnknown,
    TimedOut,
    Overloaded,
    Unavailable,
)
_ETCD: dict[str, tuple[int, str]] = {
    "malformed": (3, "etcdserver: invalid request"),
    "too_large": (3, "etcdserver: request is too large"),
    "unauthenticated": (16, "etcdserver: invalid auth token"),
    "no_such_route": (5, "Not Found"),
    "lost_lease": (5, "etcdserver: requested lease not found"),
    "lease_exists": (9, "etcdserver: lease already exists"),
    "too_many_leases": (8, "etcdserver: too many requests"),
    "compacted_revision": (11, "etcdserver: mvcc: required revision has been compacted"),
    "future_revision": (11, "etcdserver: mvcc: required revision is a future revision"),
    "no_leader": (14, "etcdserver: no leader"),
    "not_a_member": (5, "etcdserver: member not found"),
    "outcome_unknown": (14, "etcdserver: request timed out"),
    "timed_out": (14, "etcdserver: request timed out"),
    "overloaded": (8, "etcdserver: too many requests"),
    "unavailable": (14, "etcdserver: server stopped"),
}
BY_CODE: dict[str, type[KeyValueError]] = {kind.code: kind for kind in _KINDS}


def error_of(code: str, detail: str, **facts: Any) -> KeyValueError:
    """Return the error of a stable code (as a client meets it in a problem)."""
    return BY_CODE.get(code, KeyValueError)(detail, **facts)
