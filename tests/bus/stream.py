"""What the events stream holds, as an operator sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.js.errors import NotFoundError

from denizen.bus.connection import Bus, connected
from denizen.bus.messages import decode_events
from denizen.bus.settings import EVENTS_STREAM, events_subject

from .plane import Plane
from .waiting import until

SHARD = "s1"


@asynccontextmanager
async def operator(plane: Plane) -> AsyncIterator[Bus]:
    """Somebody with the bus's password."""
    async with connected(plane.bus, "operator") as bus:
        yield bus


async def sequences(bus: Bus) -> list[int]:
    """The stream's sequences that hold a message."""
    info = await bus.stream.stream_info(EVENTS_STREAM)
    found, at = [], info.state.first_seq
    while at <= info.state.last_seq:
        try:
            message = await bus.stream.get_msg(EVENTS_STREAM, at, subject=events_subject(SHARD), next=True)
        except NotFoundError:
            break
        found.append(message.seq)
        at = message.seq + 1
    return found


async def held(bus: Bus) -> list[tuple[int, int]]:
    """The positions in the stream, in order."""
    found = []
    for sequence in await sequences(bus):
        message = decode_events((await bus.stream.get_msg(EVENTS_STREAM, sequence)).data)
        found += [(event.bucket, event.sequence) for event in message.events]
    return found


async def publish_in_pieces(plane: Plane, pieces: int, events: int) -> None:
    """Several messages: each piece is published before the next is written."""
    for _ in range(pieces):
        goal = sum(relay.published for relay in plane.relays) + events
        await plane.append(events, buckets=[1, 2, 3])
        await until(lambda goal=goal: sum(relay.published for relay in plane.relays) >= goal)


def relay_level(plane: Plane) -> bool:
    """Whether every relay has published all it knows of."""
    return all(relay.level for relay in plane.relays)
