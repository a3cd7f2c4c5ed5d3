"""The feed of changes: every committed event of every user, for consumers outside, from any place on, each once.

`Hub` follows the events for all consumers of a gateway together, `Follower` is one consumer's place in them, and a
cursor (`cursors`) is that place as text, for the consumer to keep. See docs/changes.md.
"""

from denizen.changes.follower import Follower
from denizen.changes.hub import Hub

__all__ = ["Follower", "Hub"]
