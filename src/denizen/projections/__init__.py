"""The read side: read models made from events, kept in a database of their own, rebuilt by replay.

A `Projection` is a small pure object: tables, and a fold from a user's events to its row. The projector applies events
to every projection exactly once; whoever reads asks the views. See docs/projections.md.
"""

from denizen.projections.projection import Derived, Output, Projection
from denizen.projections.tables import Kind, Table

__all__ = ["Derived", "Kind", "Output", "Projection", "Table"]
