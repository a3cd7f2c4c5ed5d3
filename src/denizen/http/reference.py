"""docs/api.md: the table of routes for people to read. Its beginning is written by hand, in api_preface.md."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

from denizen.http.openapi import description, header_names, tag_of
from denizen.http.problems import CATALOGUE
from denizen.http.route import Route
from denizen.http.routes import ROUTES
from denizen.users.rejections import CODES

Json = dict[str, Any]

_GROUPS = {
    "users": "Users",
    "login-names": "Login names",
    "read-side": "Read models and the feed of changes",
    "keys": "API keys",
    "operations": "Shards and rebalancing",
    "service": "The service itself",
}

_EDGE_CODES: Final[Mapping[str, str]] = {
    "missing_field": "a field that is required is not there",
    "length": "a batch holds no items, or too many",
    "passwords": "a batch holds more plain passwords than may be hashed at once",
    "name": "not a name of an API key",
    "scope": "not the scopes of an API key",
    "rate": "not the rate of an API key",
    "too_many": "there are as many API keys as may be",
    "repeated": "a plan moves a bucket twice",
    "target": "a plan moves a bucket to where it is",
    "dsn": "not the address of a PostgreSQL database",
}


def reference() -> str:
    """The whole page."""
    preface = files("denizen.http").joinpath("api_preface.md").read_text(encoding="utf-8")
    return preface + "\n".join([*_problems(), *_field_codes(), *_routes(), *_documents()]) + "\n"


def _problems() -> Iterator[str]:
    yield "| status | code | meaning | what to do |\n| --- | --- | --- | --- |"
    for kind in CATALOGUE.values():
        again = " *(retryable)*" if kind.retryable else ""
        yield f"| {kind.status} | `{kind.code}`{again} | {kind.meaning} | {kind.remedy} |"
    yield ""


def _field_codes() -> Iterator[str]:
    yield "The codes in `errors` of an `invalid`:\n\n| code | meaning |\n| --- | --- |"
    for code, meaning in {**CODES, **_EDGE_CODES}.items():
        yield f"| `{code}` | {meaning} |"
    yield ""


def _routes() -> Iterator[str]:
    for tag, title in _GROUPS.items():
        yield f"## {title}\n"
        for route in (route for route in ROUTES if tag_of(route) == tag):
            yield from _route(route)


def _route(route: Route) -> Iterator[str]:
    yield f"### `{route.method} {route.path}`\n"
    yield f"{route.summary}. {_scope(route)}\n"
    for query in route.query:
        yield f"- query `{query.name}`: {query.description}{_bounds(query.schema)}"
    if headers := [f"`{name}`" for name in header_names(route) if name != "X-Request-Id"]:
        yield f"- headers: {', '.join(headers)}"
    if route.body is not None:
        optional = "" if route.body_required else ", optional"
        yield f"- body: {_link(route.body.__name__)}{optional}"
    yield f"- answers: {_answers(route)}"
    yield f"- problems: {', '.join(f'{error.status} `{error.code}`' for error in route.all_problems())}\n"


def _scope(route: Route) -> str:
    return "Open to all." if route.scope is None else f"Scope `{route.scope}`."


def _bounds(schema: Json) -> str:
    parts = []
    if "minimum" in schema and "maximum" in schema:
        parts.append(f"{schema['minimum']} to {schema['maximum']}")
    if "default" in schema:
        parts.append(f"default {schema['default']}")
    return f" ({', '.join(parts)})" if parts else ""


def _answers(route: Route) -> str:
    if route.text:
        what = "text"
    elif route.reply is None:
        what = "nothing"
    else:
        what = "JSON" if route.reply is dict else _link(route.reply.__name__)
    answers = [
        f"{route.status} {what}",
        *(f"{status} {_link(shape.__name__)}" for status, shape in route.other_replies),
    ]
    if route.streams:
        answers.append("or `text/event-stream`")
    if route.cached:
        answers.append("304")
    return ", ".join(answers)


def _documents() -> Iterator[str]:
    yield "## Documents\n"
    for name, schema in description()["components"]["schemas"].items():
        yield f"### {name}\n"
        yield f"{' '.join(schema.get('description', '').split())}\n"
        required = set(schema.get("required", ()))
        yield "| member | type | |\n| --- | --- | --- |"
        for member, of in schema.get("properties", {}).items():
            mark = "" if member in required else " *(optional)*"
            yield f"| `{member}`{mark} | {_type(of)} | {_about(of)} |"
        yield ""


def _type(schema: Json) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    kind = schema.get("type", "any")
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _about(schema: Json) -> str:
    parts = list(_parts(schema))
    text = " ".join(part["description"] for part in parts if "description" in part)
    limits = [
        f"{words} {part[name]}"
        for part in parts
        for name, words in (("minLength", "at least"), ("maxLength", "at most"))
        if name in part
    ]
    bounds = f"{', '.join(limits)} characters." if limits else ""
    return " ".join(part for part in (text, bounds[:1].upper() + bounds[1:]) if part)


def _parts(schema: Json) -> Iterable[Json]:
    return (schema, *schema.get("anyOf", ()))


def _link(name: str) -> str:
    return f"[{name}](#{re.sub(r'[^a-z0-9]', '', name.lower())})"
