"""Problems: every error of the API as RFC 9457 `application/problem+json`, and the list of all there are.

`CATALOGUE` is the one list of codes: `/problems/<code>` serves a page of it, docs/api.md and OpenAPI are made from
it, and the client has a class for each. `type` is a relative reference (`/problems/version_conflict`), resolved
against the gateway's own address, which is where its page is.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from denizen import errors
from denizen.changes.hub import Closing
from denizen.errors import DenizenError, Invalid, WrongStatus
from denizen.http import refusals
from denizen.http.replies import PROBLEM, Headers, Reply, encode_json
from denizen.users.rejections import Rejected


class ProblemKind(Struct, frozen=True):
    """One kind of problem, and what a client does about it."""

    code: str
    status: int
    title: str
    meaning: str
    remedy: str
    retryable: bool


_REMEDIES: Final[Mapping[type[DenizenError], str]] = {
    refusals.MalformedJson: "Send one JSON value in UTF-8; `byte_offset` says where ours stopped reading.",
    refusals.InvalidParameter: "Look at `errors` for the parameter's name and what it may be.",
    refusals.InvalidHeader: "Look at `errors` for the header's name and what it may be.",
    refusals.BodyCutOff: "Send the whole body; nothing was changed.",
    errors.Unauthenticated: "Send `Authorization: Bearer <key>` with a key that is not revoked.",
    errors.Forbidden: "Use a key with the scope that `detail` names.",
    refusals.RouteNotFound: "Look at `/v1/openapi.json`.",
    errors.ShardNotFound: "List the shards at `/v1/shards`.",
    errors.UserNotFound: "Check the id or the login name.",
    refusals.KeyNotFound: "List the keys at `/v1/keys`.",
    refusals.MethodNotAllowed: "Use one of the methods in the `Allow` header.",
    refusals.BodyTimeout: "Send the body faster; nothing was changed.",
    errors.LoginNameTaken: "Choose another login name; `kind` says which one is taken.",
    errors.Refused: "Look at `reason` and `detail`, and at `/v1/rebalance` and `/v1/shards`.",
    errors.WrongStatus: "Get the user and look at its `status`.",
    errors.UserDeleted: "The user is gone for good; its history can still be read.",
    errors.UserErased: "The user is gone for good, and so are its data; `/v1/erasures/{id}` has the certificate.",
    errors.ErasureNotFound: "Check the id; list the erasures at `/v1/erasures`.",
    errors.VersionConflict: "Get the user again and repeat the change on its present version.",
    refusals.LengthRequired: "Send `Content-Length`.",
    refusals.BodyTooLarge: "Send less; large batches go in parts.",
    refusals.UriTooLong: "Send a shorter path and query.",
    refusals.UnsupportedMediaType: "Send `Content-Type: application/json`.",
    errors.Invalid: "Look at `errors`, which names every field at fault.",
    errors.IdempotencyKeyReused: "Use a new key for each new request.",
    errors.SearchTooBroad: "Narrow the search down, or leave the sorting out.",
    errors.RateLimited: "Wait as long as `Retry-After` says.",
    refusals.HeadersTooLarge: "Send fewer or smaller header fields.",
    errors.DenizenError: "Repeat it later; if it stays, report it with the `request_id`.",
    errors.OutcomeUnknown: "Repeat it with the same `Idempotency-Key`: it happens once, or is answered from before.",
    errors.Unavailable: "Repeat it in a moment; nothing was changed.",
    refusals.ProcessNotHere: "Ask the gateway of the machine on which it runs; `denizen status` shows whether it does.",
    refusals.ProjectionNotFound: "List them at `/v1/projections`.",
    refusals.ReplayRefused: "Look at `/v1/replays` and `/v1/projections`.",
    refusals.SlowConsumer: "Read faster, or in several consumers by `buckets`; go on with the last cursor.",
    refusals.TooManyFeeds: "Close feeds that you do not need, or wait for one to end.",
    Closing: "Go on with the last cursor in a moment: another gateway takes over.",
    errors.Overloaded: "Repeat it in a moment; nothing was changed.",
    errors.Moved: "Repeat it in a moment; nothing was changed.",
}


def _kind(error: type[DenizenError], remedy: str) -> ProblemKind:
    meaning = (error.__doc__ or "").split("\n")[0].split("; `facts`")[0].rstrip(".") + "."
    if error is DenizenError:
        meaning = "Something went wrong in the service."
    return ProblemKind(error.code, error.status, error.title, meaning, remedy, error.retryable)


CATALOGUE: Final[Mapping[str, ProblemKind]] = {
    kind.code: kind
    for kind in sorted((_kind(*item) for item in _REMEDIES.items()), key=lambda kind: (kind.status, kind.code))
}

_PRIVATE: Final = frozenset({"field", "rule"})  # facts that `errors` shows


def problem_type(code: str) -> str:
    """The `type` of a problem: a relative reference to its page."""
    return f"/problems/{code}"


def as_error(error: BaseException) -> DenizenError:
    """What the domain or the service raised, as an error of the tree. Anything unexpected is an internal error."""
    if isinstance(error, Rejected):
        if error.code == "wrong_status":
            return WrongStatus(error.detail)
        faults = [{"field": fault.field, "code": fault.code, "detail": fault.detail} for fault in error.faults]
        return Invalid(str(error), errors=faults)
    if isinstance(error, DenizenError) and error.code in CATALOGUE:
        return error
    return DenizenError("an unexpected error; the log has it under this request id")


def problem_document(error: DenizenError, request_id: str | None = None) -> dict[str, Any]:
    """The members of the problem."""
    document: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "retryable": error.retryable,
    }
    if request_id is not None:
        document["request_id"] = request_id
    if "field" in error.facts and "errors" not in error.facts:
        one = {"field": error.facts["field"], "code": error.facts.get("rule", error.code), "detail": error.detail}
        document["errors"] = [one]
    document |= {name: value for name, value in error.facts.items() if name not in document and name not in _PRIVATE}
    return document


def problem_reply(error: DenizenError, request_id: str) -> Reply:
    """The reply to a request that failed with this error."""
    headers: Headers = [("content-type", PROBLEM)]
    if error.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="denizen"'))
    if isinstance(error, refusals.MethodNotAllowed):
        headers.append(("allow", error.allow))
    if error.status in (408, 411, 413):
        headers.append(("connection", "close"))  # the rest of the body is not wanted
    if error.retryable:
        headers.append(("retry-after", str(error.facts.get("retry_after_s", 1))))
    return Reply(error.status, encode_json(problem_document(error, request_id)), headers)


def problem_page(kind: ProblemKind) -> str:
    """The text behind a problem's `type`."""
    again = "The same request may succeed later." if kind.retryable else "The same request will fail again."
    return f"{kind.title} ({kind.status} {kind.code})\n\n{kind.meaning}\n{kind.remedy}\n{again}\n"
