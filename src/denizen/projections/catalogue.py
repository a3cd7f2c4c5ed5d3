"""Which projections this program has: those that come with it, and those that other packages add.

A package adds its own by an entry point in the group `denizen.projections`, which names a `Projection`:

    [project.entry-points."denizen.projections"]
    plans = "my_package.plans:PLANS"
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Final

from denizen.errors import BadConfiguration
from denizen.projections.activity import ACTIVITY
from denizen.projections.directory.model import DIRECTORY
from denizen.projections.projection import Projection
from denizen.projections.statistics import STATISTICS

GROUP: Final = "denizen.projections"
SHIPPED: Final = (DIRECTORY, ACTIVITY, STATISTICS)


def catalogue() -> dict[str, Projection]:
    """Every projection by its name. Raises `BadConfiguration` if two have a name or a table in common."""
    added = [entry.load() for entry in entry_points(group=GROUP)]
    return by_name([*SHIPPED, *added])


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
