"""Where the bus is, how long it keeps messages, and what its subjects and streams are called."""

from typing import Final

from msgspec import Struct

from denizen import limits
from denizen.sharding.ids import ShardId

EVENTS_STREAM: Final = "DENIZEN_EVENTS"
HEADS_STREAM: Final = "DENIZEN_HEADS"
EVENTS_SUBJECTS: Final = "denizen.events.*"
HEADS_SUBJECTS: Final = "denizen.heads.*"
HINT_SUBJECT: Final = "denizen.hint"  # gateways tell relays and projectors that something was committed; never stored


def events_subject(shard: ShardId) -> str:
    """The subject of a shard's events."""
    return f"denizen.events.{shard}"


def heads_subject(shard: ShardId) -> str:
    """The subject of a shard's heads: how far its buckets are, once a second."""
    return f"denizen.heads.{shard}"


class BusSettings(Struct, frozen=True):
    """A NATS server or cluster with JetStream, and the retention of the events stream.

    Messages are dropped when they are older than `retention_s`, or when the stream has more than `retention_bytes`:
    the oldest first. `replicas` is that of the streams, for a cluster. Messages may hold personal data, so the age is
    the time after which an erased person is gone from the bus too. `give_way_s`: see `rush`.
    """

    servers: tuple[str, ...]  # nats://host:port, tls://host:port
    user: str | None = None
    password: str | None = None
    token: str | None = None
    retention_s: int = 24 * 3600
    retention_bytes: int = 1 << 30
    replicas: int = 1
    give_way_s: float = limits.rush_patience_s
