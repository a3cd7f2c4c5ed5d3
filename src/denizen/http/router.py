"""From method and path to route: one dictionary for fixed paths, a few expressions for the rest.

Templates are those of the table: `{id}` stands for a segment without `/` or `:`, `{value}` for anything, for
the path is decoded already and an email may hold a slash.
"""

import re
from collections.abc import Iterable, Mapping

from denizen.http.refusals import MethodNotAllowed, RouteNotFound
from denizen.http.route import Route

_PATTERNS = {"value": r"[^\x00]+?"}


class Router:
    """The table of routes, ready to be looked up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._templates: list[tuple[str, str, re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        for path, methods in by_path.items():
            if "{" in path:
                self._templates.append(
                    (path[: path.index("{")], path[path.rindex("}") + 1 :], _expression(path), methods)
                )
            else:
                self._fixed[path] = methods
        # The longer literal tail first: `…/{value}/password/verify` before `…/{value}`, which matches it as well.
        self._templates.sort(key=lambda item: -item[2].pattern.count("/"))
        self._everything = ", ".join(sorted({route.method for route in by_path_routes(by_path)} | {"HEAD", "OPTIONS"}))

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and the path's parameters; `RouteNotFound`, or `MethodNotAllowed` with those that are."""
        methods, params = self._methods(method, path)
        route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if route is None:
            raise MethodNotAllowed(method, allowed(methods))
        return route, params

    def options(self, path: str) -> str:
        """What `Allow` says for this path; `RouteNotFound`."""
        return self._everything if path == "*" else allowed(self._methods("OPTIONS", path)[0])

    def _methods(self, method: str, path: str) -> tuple[dict[str, Route], Mapping[str, str]]:
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        other: tuple[dict[str, Route], Mapping[str, str]] | None = None
        for prefix, tail, expression, methods in self._templates:
            if path.startswith(prefix) and path.endswith(tail) and (match := expression.fullmatch(path)):
                if method in methods or method in ("HEAD", "OPTIONS"):
                    return methods, match.groupdict()
                other = other or (methods, match.groupdict())
        if other is None:
            raise RouteNotFound("there is no such route; /v1/openapi.json lists them")
        return other


def allowed(methods: Mapping[str, Route]) -> str:
    """The value of `Allow` for a path with these methods."""
    names = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names))


def by_path_routes(by_path: Mapping[str, Mapping[str, Route]]) -> Iterable[Route]:
    """All routes of a table that is grouped by path."""
    return (route for methods in by_path.values() for route in methods.values())


def _expression(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    pieces = [
        re.escape(part) if index % 2 == 0 else f"(?P<{part}>{_PATTERNS.get(part, '[^/:]+')})"
        for index, part in enumerate(parts)
    ]
    return re.compile("".join(pieces), re.DOTALL)
