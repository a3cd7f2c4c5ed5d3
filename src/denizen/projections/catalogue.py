"""Which projections this program has: those that come with it, and those that other packages add.

A package adds its own by an entry point in the group `denizen.projections`, which names a `Projection`:

    [project.entry-points."denizen.projections"]
    plans = "my_package.plans:PLANS"
"""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import structlog

from denizen.errors import BadConfiguration, BadDeployment
from denizen.projections.activity import ACTIVITY
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.projection import Projection
from denizen.projections.statistics import STATISTICS

_log = structlog.get_logger()

GROUP: Final = "denizen.projections"
SHIPPED: Final = (DIRECTORY, ACTIVITY, STATISTICS)


class UnknownProjection(BadDeployment):
    """This program has no projection of this name."""


def catalogue() -> dict[str, Projection]:
    """Every projection by its name; one that does not load is left out, so that the others go on.

    Raises `BadConfiguration` if two have a name or a table in common.
    """
    added = (_load(entry) for entry in entry_points(group=GROUP))
    return by_name([*SHIPPED, *(each for each in added if not isinstance(each, str))])


def projection_of(name: str) -> Projection:
    """The projection of this name; `UnknownProjection` says why there is none."""
    known = catalogue()
    if name in known:
        return known[name]
    broken = (_load(entry) for entry in entry_points(group=GROUP, name=name))
    why = next((each for each in broken if isinstance(each, str)), f"there is no projection {name[:60]}")
    raise UnknownProjection(f"{why}; there are {', '.join(sorted(known))}")


@cache
def _load(entry: EntryPoint) -> Projection | str:
    """What the entry point names, loaded once; or why it cannot be."""
    try:
        found: Projection = entry.load()
    except Exception as error:  # noqa: BLE001  whatever that package does
        package = entry.dist.name if entry.dist else "an unknown package"
        said = f"{type(error).__name__}: {error}"
        _log.warning("projection_not_loaded", entry_point=entry.name, package=package, error=said)
        return f"projection {entry.name} of {package} does not load ({said})"
    return found


def by_name(projections: Iterable[Projection]) -> dict[str, Projection]:
    """These projections by name, checked."""
    found: dict[str, Projection] = {}
    tables: set[str] = {
        "projections",
        "checkpoints",
        "advances",
        "parked",
        "progress",
        "owner",
        "replays",
        "replay_parts",
        "schema_migrations",
    }
    for projection in projections:
        if not isinstance(projection, Projection):
            raise BadConfiguration(f"projections: {projection!r} of an entry point is not a Projection")
        names = {table.name for table in projection.tables}
        if projection.name in found or names & tables:
            raise BadConfiguration(f"projections: {projection.name} has a name or a table that another one has")
        found[projection.name] = projection
        tables |= names
    return found
