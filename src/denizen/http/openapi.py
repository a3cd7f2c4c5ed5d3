"""The API's description as OpenAPI 3.1, made from the table of routes and the documents' shapes.

`python -m denizen.http.openapi --write docs` writes docs/openapi.json and docs/api.md; a test holds them to what this
makes. The gateway serves the same at `/v1/openapi.json`.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from denizen import __version__
from denizen.api import shapes
from denizen.http.problems import CATALOGUE
from denizen.http.replies import PROBLEM
from denizen.http.route import Route
from denizen.http.routes import ROUTES
from denizen.limits import idempotency_key_chars_max, request_id_chars_max

Json = dict[str, Any]

_PATH_PARAMETERS: Final[dict[str, Json]] = {
    "id": {"description": "User id.", "schema": {"type": "string", "format": "uuid"}},
    "kind": {
        "description": "Kind of login name; 404 `route_not_found` if the deployment does not use it.",
        "schema": {"enum": ["email", "username", "phone"]},
    },
    "value": {"description": "Login name in any spelling, percent-encoded.", "schema": {"type": "string"}},
    "key_id": {"description": "Key id.", "schema": {"type": "string", "pattern": "^[^/:]+$"}},
    "shard": {"description": "Name of a shard.", "schema": {"type": "string", "pattern": "^[^/:]+$"}},
    "projection": {"description": "Name of a projection.", "schema": {"type": "string", "pattern": "^[^/:]+$"}},
    "code": {"description": "Code of a problem.", "schema": {"enum": list(CATALOGUE)}},
}
_HEADERS: Final[dict[str, Json]] = {
    "X-Request-Id": {
        "description": f"Names the request in logs: up to {request_id_chars_max} visible characters, else one is made. "
        "A UUID is also the correlation id of what it changes.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "description": "Makes a repetition of this write safe. Any unique text.",
        "schema": {"type": "string", "pattern": rf"^[\x21-\x7e]{{1,{idempotency_key_chars_max}}}$"},
    },
    "If-Match": {
        "description": 'Only if the user is at this version: its entity tag, such as `"7"`, or `*`.',
        "schema": {"type": "string", "pattern": r'^("[1-9][0-9]{0,17}"|\*)$'},
    },
    "Last-Event-ID": {
        "description": "The `id` of the last message, as a browser sends it; goes before `cursor`.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "description": "Entity tags that the client has; 304 if one is current.",
        "schema": {"type": "string"},
    },
}
_REPLY_HEADERS: Final[dict[str, str]] = {
    "ETag": "The user's version, in quotes.",
    "Location": "Where the new resource is.",
    "Denizen-Position": "The place of the write in the log, the same as `position`.",
    "Idempotency-Replayed": "`true`: this is the answer to an earlier request with this key.",
    "RateLimit-Policy": '`"key";q=<requests>;w=<seconds>`, for keys with a rate.',
    "RateLimit": '`"key";r=<requests left>;t=<seconds until all are back>`, for keys with a rate.',
    "Retry-After": "Seconds to wait.",
    "WWW-Authenticate": "`Bearer`.",
}


def description() -> Json:
    """The whole description."""
    schemas, components = msgspec.json.schema_components(_documents(ROUTES), ref_template="#/components/schemas/{name}")
    references = dict(zip(_documents(ROUTES), schemas, strict=True))
    paths: dict[str, Json] = defaultdict(dict)
    for route in ROUTES:
        paths[route.path][route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Denizen",
            "version": __version__,
            "description": "The place where an application's users live. See docs/api.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "dk_<id>_<secret>"}},
        },
    }


def description_json() -> bytes:
    """The description as the gateway serves it and docs/openapi.json has it."""
    return json.dumps(description(), indent=1, ensure_ascii=False).encode() + b"\n"


def _documents(routes: Iterable[Route]) -> list[type]:
    """Every document of the API, each once."""
    found: dict[type, None] = {shapes.Problem: None}
    for route in routes:
        for document in (route.body, route.reply, *(other for _, other in route.other_replies)):
            if document is not None and document is not dict:
                found[document] = None
    return list(found)


def _operation(route: Route, references: dict[type, Json]) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [tag_of(route)],
        "parameters": list(_parameters(route)),
        "responses": _responses(route, references),
    }
    if route.scope is not None:
        operation["security"] = [{"key": [route.scope]}]
        operation["description"] = f"Scope: `{route.scope}`."
    else:
        operation["security"] = []
    if route.body is not None:
        schema = references[route.body]
        operation["requestBody"] = {
            "required": route.body_required,
            "description": f"At most {route.body_bytes_max} bytes.",
            "content": {media_type: {"schema": schema} for media_type in route.media_types},
        }
    return operation


def tag_of(route: Route) -> str:
    """The group of a route: what its path is about."""
    noun = re.split(r"[/:]", route.path.removeprefix("/v1"))[1]
    if noun in ("changes", "activity", "statistics", "projections", "replays"):
        return "read-side"
    if noun in ("shards", "rebalance", "buckets", "map"):
        return "operations"
    return noun if noun in ("users", "login-names", "keys") else "service"


def _parameters(route: Route) -> Iterable[Json]:
    for name in re.findall(r"\{(\w+)\}", route.path):
        yield {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name]}
    for query in route.query:
        yield {"name": query.name, "in": "query", "description": query.description, "schema": query.schema}
    for name in header_names(route):
        yield {"name": name, "in": "header", **_HEADERS[name]}


def header_names(route: Route) -> list[str]:
    """The header fields of requests that mean something to this route."""
    wanted = {
        "Idempotency-Key": route.writes,
        "If-Match": route.conditional,
        "If-None-Match": route.cached,
        "Last-Event-ID": route.streams,
    }
    return [*(name for name, is_wanted in wanted.items() if is_wanted), "X-Request-Id"]


def _responses(route: Route, references: dict[type, Json]) -> Json:
    success: Json = {"description": route.summary, "headers": _reply_headers(route)}
    if route.text:
        success["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif route.reply is not None:
        schema = {"type": "object"} if route.reply is dict else references[route.reply]
        success["content"] = {"application/json": {"schema": schema}}
    if route.streams:
        success["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    responses = {str(route.status): success}
    if route.cached:
        responses["304"] = {"description": "The client has this version.", "headers": _named("ETag")}
    by_status: dict[int, list[str]] = defaultdict(list)
    for error in route.all_problems():
        by_status[error.status].append(error.code)
    for status, codes in by_status.items():
        responses[str(status)] = _problems(status, codes)
    for status, document in route.other_replies:
        responses[str(status)] = {
            "description": route.summary,
            "content": {"application/json": {"schema": references[document]}},
        }
    return dict(sorted(responses.items()))


def _problems(status: int, codes: list[str]) -> Json:
    response: Json = {
        "description": " ".join(f"`{code}`: {CATALOGUE[code].meaning}" for code in codes),
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status == 401:
        response["headers"] = _named("WWW-Authenticate")
    if any(CATALOGUE[code].retryable for code in codes):
        response["headers"] = _named("Retry-After")
    return response


def _reply_headers(route: Route) -> Json:
    names = []
    if route.reply in (shapes.UserDocument, shapes.WrittenUser):
        names.append("ETag")
    if route.status == 201:
        names.append("Location")
    if route.reply is shapes.WrittenUser:
        names += ["Denizen-Position", "Idempotency-Replayed"]
    if route.scope is not None:
        names += ["RateLimit-Policy", "RateLimit"]
    return _named(*names)


def _named(*names: str) -> Json:
    return {name: {"description": _REPLY_HEADERS[name], "schema": {"type": "string"}} for name in names}


def main(arguments: list[str]) -> int:
    """Write the two files into the directory behind `--write`."""
    from denizen.http.reference import reference

    if len(arguments) != 2 or arguments[0] != "--write":
        print("usage: python -m denizen.http.openapi --write DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[1])
    (directory / "openapi.json").write_bytes(description_json())
    (directory / "api.md").write_text(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
