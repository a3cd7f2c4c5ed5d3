"""The documents of erasures: the certificate, and the list."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from denizen.api.shapes import PositionToken


class CertificateDocument(Struct):
    """What was destroyed when a user was erased. Nothing in it is personal; keep it as the proof.

    At `erased_at` the key of the user's history was destroyed (`events_destroyed` events, versions 1 to that number),
    and with it the state and the login names in the user's own bucket; `login_names_released` counts all of them. At
    `settled_at` nothing was left of the names in other buckets. `read_models_empty`: the search and the other read
    models have followed; null if that cannot be told now. At `queue_empty_at` the last message with data of the user
    has left the message queue; null without a queue. At `scrubbed_at` the database servers' files were cleaned of old
    copies (`denizen erasures scrub`). `complete`: all of this is past.
    """

    user_id: UUID
    erased_at: datetime
    actor: str
    correlation_id: UUID | None
    position: PositionToken
    events_destroyed: int
    login_names_released: int
    settled_at: datetime | None
    read_models_empty: bool | None
    queue_empty_at: datetime | None
    scrubbed_at: datetime | None
    complete: bool


class ErasureDocument(Struct):
    """An erasure in the list: how far it is."""

    user_id: UUID
    erased_at: datetime
    settled_at: datetime | None
    scrubbed_at: datetime | None


class ErasurePage(Struct):
    """Erasures, the newest first; `next_cursor` is null at the end."""

    items: list[ErasureDocument]
    next_cursor: str | None
