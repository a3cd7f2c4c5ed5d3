"""What becomes of a person. None: it is still under way."""

from uuid import UUID

from msgspec import Struct


class Imported(Struct, frozen=True, gc=False):
    """The user is durable with all its names; `before`: an earlier run of the same import did it."""

    before: bool = False


class Taken(Struct, frozen=True, gc=False):
    """Another user has the login name of this kind."""

    kind: int
    owner: UUID


class Busy(Struct, frozen=True, gc=False):
    """Somebody else's change of one of its names is under way, or an earlier attempt of ours is unsettled: try again.

    `ours`: nobody but us is behind it, so that it can be settled at once.
    """

    ours: bool = False


class Cancelled(Struct, frozen=True, gc=False):
    """The sweeper gave the command up: it needs another id."""


Fate = Imported | Taken | Busy | Cancelled
IMPORTED = Imported()
IMPORTED_BEFORE = Imported(before=True)
BUSY = Busy()
OURS = Busy(ours=True)
CANCELLED = Cancelled()
