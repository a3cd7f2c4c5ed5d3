"""The streams of the bus: made if they are missing, brought to the settings if they differ.

`DENIZEN_EVENTS` keeps the events for a stated time and size. `DENIZEN_HEADS` keeps the newest heads of each shard: a
relay that begins again learns from it how far it was.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from denizen import limits
from denizen.bus.connection import Bus, BusLost
from denizen.bus.settings import EVENTS_STREAM, EVENTS_SUBJECTS, HEADS_STREAM, HEADS_SUBJECTS, BusSettings


class StreamFacts(Struct, frozen=True):
    """What a stream is, and what it holds now."""

    identity: str  # changes when the stream is made anew
    first: int
    last: int


def stream_configs(settings: BusSettings) -> tuple[StreamConfig, StreamConfig]:
    """How the two streams should be."""
    common: dict[str, Any] = {
        "retention": RetentionPolicy.LIMITS,
        "storage": StorageType.FILE,
        "discard": DiscardPolicy.OLD,
        "num_replicas": settings.replicas,
        "allow_direct": True,
    }
    window = min(limits.bus_duplicate_window_s, settings.retention_s)
    events = StreamConfig(
        name=EVENTS_STREAM,
        subjects=[EVENTS_SUBJECTS],
        max_age=settings.retention_s,
        max_bytes=settings.retention_bytes,
        duplicate_window=window,
        **common,
    )
    heads = StreamConfig(
        name=HEADS_STREAM, subjects=[HEADS_SUBJECTS], max_msgs_per_subject=1, duplicate_window=window, **common
    )
    return events, heads


async def ensure_streams(bus: Bus, settings: BusSettings) -> None:
    """Make the streams that are missing; change those whose limits differ from the settings."""
    for config in stream_configs(settings):
        try:
            found = (await bus.stream.stream_info(config.name)).config
        except NotFoundError:
            await bus.stream.add_stream(config)
            continue
        names = ("subjects", "max_age", "max_bytes", "max_msgs_per_subject", "num_replicas")
        wanted = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
        if any(getattr(found, name) != value for name, value in wanted.items()):
            await bus.stream.update_stream(found.evolve(**wanted))


async def events_stream(bus: Bus) -> StreamFacts:
    """The facts of the events stream; `BusLost` if there is none."""
    try:
        info = await bus.stream.stream_info(EVENTS_STREAM)
    except NotFoundError:
        raise BusLost("there is no events stream") from None
    created: datetime | None = info.created
    return StreamFacts(str(created), info.state.first_seq, info.state.last_seq)
