"""What a route is: one operation of the API, and everything that follows from its properties.

A route names what is its own; what follows from its properties (401 where a scope is needed, 413 where there is a
body …) is worked out here, once.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct

from denizen import errors
from denizen.errors import DenizenError
from denizen.http import refusals
from denizen.http.replies import JSON, Reply
from denizen.http.requests import Request
from denizen.http.services import Services
from denizen.http.streaming import StreamReply
from denizen.limits import body_bytes_max

Handler = Callable[[Services, Request], Awaitable[Reply | StreamReply]]
Problems = tuple[type[DenizenError], ...]

READ: Final = "users:read"
WRITE: Final = "users:write"
ADMIN: Final = "admin"
METRICS: Final = "metrics:read"


_ALWAYS: Final[Problems] = (
    refusals.InvalidParameter,
    refusals.InvalidHeader,
    refusals.UriTooLong,
    refusals.HeadersTooLarge,
    DenizenError,
)
_OF_BODIES: Final[Problems] = (
    refusals.MalformedJson,
    refusals.BodyCutOff,
    refusals.BodyTimeout,
    refusals.LengthRequired,
    refusals.BodyTooLarge,
    refusals.UnsupportedMediaType,
    errors.Invalid,
)


class Query(Struct, frozen=True):
    """A query parameter; `schema` is its JSON schema."""

    name: str
    description: str
    schema: dict[str, Any]


class Route(Struct, frozen=True, kw_only=True):
    """One operation of the API.

    `scope` None: open to all. `reply` is the document of a success, None for no body, `text` for plain text. `writes`:
    it takes `Idempotency-Key` and answers with a position. `conditional`: it takes `If-Match`. `cached`: it takes
    `If-None-Match`. `streams`: it answers with server-sent events if they are asked for.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    scope: str | None
    status: int = 200
    reply: type | None = None
    text: bool = False
    body: type | None = None
    body_required: bool = True
    body_bytes_max: int = body_bytes_max
    media_types: tuple[str, ...] = (JSON,)
    query: tuple[Query, ...] = ()
    writes: bool = False
    conditional: bool = False
    cached: bool = False
    streams: bool = False
    other_replies: tuple[tuple[int, type], ...] = ()
    problems: Problems = ()

    @property
    def query_names(self) -> frozenset[str]:
        """The names of its query parameters."""
        return frozenset(query.name for query in self.query)

    def all_problems(self) -> list[type[DenizenError]]:
        """Every problem that this route can answer with, by status and code."""
        found: set[type[DenizenError]] = {*_ALWAYS, *self.problems}
        if "{" in self.path:
            found |= {refusals.RouteNotFound}  # a parameter with a separator in it, even an encoded one
        if self.scope is not None:
            found |= {errors.Unauthenticated, errors.Forbidden, errors.RateLimited, errors.Unavailable}
            found |= {errors.Overloaded}
        if self.body is not None:
            found |= set(_OF_BODIES)
        if self.conditional:
            found |= {errors.VersionConflict}
        if self.writes:
            found |= {errors.IdempotencyKeyReused, errors.OutcomeUnknown, errors.Moved}
        return sorted(found, key=lambda error: (error.status, error.code))
