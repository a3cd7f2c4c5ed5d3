"""Requests refused before the service is asked: what HTTP itself, not the domain, finds wrong.

They join the tree of `denizen.errors`, so that one function renders every error; nothing was changed by a request that
ended in one of them.
"""

from denizen.errors import DenizenError


class RouteNotFound(DenizenError):
    """There is no such route."""

    code, status, title = "route_not_found", 404, "No such route"


class KeyNotFound(DenizenError):
    """There is no API key with this id."""

    code, status, title = "key_not_found", 404, "No such API key"


class MethodNotAllowed(DenizenError):
    """The route exists, but not with this method; `Allow` lists those it has."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"{method:.20} is not possible here; {allow} are")
        self.allow = allow


class InvalidParameter(DenizenError):
    """A query parameter is unknown, repeated, or has a value it cannot have."""

    code, status, title = "invalid_parameter", 400, "Invalid query parameter"

    def __init__(self, name: str, rule: str, detail: str) -> None:
        super().__init__(detail, errors=[{"field": name[:60], "code": rule, "detail": detail}])


class InvalidHeader(DenizenError):
    """A header field has a value it cannot have."""

    code, status, title = "invalid_header", 400, "Invalid header"

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail, errors=[{"field": name, "code": "invalid_header", "detail": detail}])


class MalformedJson(DenizenError):
    """The body is not JSON, or names a member of an object twice."""

    code, status, title = "malformed_json", 400, "Malformed JSON"


class BodyCutOff(DenizenError):
    """The body ended before its declared length."""

    code, status, title = "body_cut_off", 400, "Body cut off"


class BodyTimeout(DenizenError):
    """The body did not arrive in time."""

    code, status, title = "body_timeout", 408, "Body too slow"


class LengthRequired(DenizenError):
    """The body comes in chunks, without a length: its end could not be told from a broken connection."""

    code, status, title = "length_required", 411, "Length required"


class BodyTooLarge(DenizenError):
    """The body has more bytes than this route takes."""

    code, status, title = "body_too_large", 413, "Body too large"


class UriTooLong(DenizenError):
    """The path and query have more characters than the gateway takes."""

    code, status, title = "uri_too_long", 414, "URI too long"


class UnsupportedMediaType(DenizenError):
    """The body's media type is not one that this route takes."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class HeadersTooLarge(DenizenError):
    """The header fields have more bytes than the gateway takes."""

    code, status, title = "headers_too_large", 431, "Header fields too large"


class SlowConsumer(DenizenError):
    """A consumer of the feed of changes did not read what was sent."""

    code, status, title, retryable = "slow_consumer", 408, "Consumer too slow", True


class TooManyFeeds(DenizenError):
    """The key, or all keys together, have as many feeds of changes open as there may be."""

    code, status, title, retryable = "too_many_feeds", 429, "Too many feeds", True


class ProcessNotHere(DenizenError):
    """No such process runs beside this gateway."""

    code, status, title = "process_not_here", 404, "No such process here"


class ProjectionNotFound(DenizenError):
    """There is no projection of this name."""

    code, status, title = "projection_not_found", 404, "No such projection"


class ReplayRefused(DenizenError):
    """The read models are not in the state that this needs; `detail` says what to do first."""

    code, status, title = "replay_refused", 409, "Not possible as things are"
