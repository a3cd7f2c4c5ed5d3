"""The documents of the read side: the feed of changes."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from denizen.api.shapes import PositionToken, Version


class ChangeDocument(Struct):
    """What happened to a user. `position` names it for ever; those of one bucket come in order."""

    user_id: UUID
    version: Version
    position: PositionToken
    type: str
    schema: int
    recorded_at: datetime
    actor: str
    command_id: UUID
    correlation_id: UUID | None
    data: dict[str, Any]


class ChangeBatch(Struct):
    """The next changes. `lag_events`: how many events were committed behind them when this was sent."""

    items: list[ChangeDocument]
    lag_events: int


class ChangePage(ChangeBatch):
    """The next changes, and the cursor to go on with: keep it together with what you made of them.

    `more`: there were more at once. The cursor goes on where this page ends, even if the page is empty.
    """

    next_cursor: str
    more: bool
