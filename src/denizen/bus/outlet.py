"""Where a relay publishes: its subject of the stream, at a place it is sure of.

Each publication says which message of the subject it expects to be the last. If another relay has published, or the
end of the stream was lost, JetStream refuses it; then, and after any other doubt, a new outlet is opened from what the
stream really holds.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any

import nats.errors
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from denizen import limits
from denizen.bus.connection import Bus, BusLost
from denizen.bus.cursors import Cursors, replay
from denizen.bus.messages import (
    VERSION,
    BadMessage,
    HeadsMessage,
    decode_events,
    decode_heads,
    encode_events,
    encode_heads,
    split_rows,
)
from denizen.bus.publishing import Publisher
from denizen.bus.settings import EVENTS_STREAM, HEADS_STREAM, events_subject, heads_subject
from denizen.bus.streams import StreamFacts, events_stream
from denizen.sharding.ids import Bucket, Position, ShardId


class Outlet:
    """An open place to publish; made by `open_outlet`."""

    def __init__(self, bus: Bus, publisher: Publisher, shard: ShardId, stream: str, last: int) -> None:
        self._bus = bus
        self._publisher = publisher
        self._shard = shard
        self._stream = stream
        self._last = last
        # A publication repeated within a session is stored once; one of a later session may be meant to replace a
        # message that was deleted, and must not be taken for it.
        self._session = secrets.token_hex(4)

    async def publish(self, rows: Sequence[Sequence[Any]], cursors: Cursors) -> int:
        """Publish the events in these rows, in order; how many messages it took."""
        parts = split_rows(rows, limits.bus_message_bytes_max)
        for part in parts:
            payload = encode_events(self._shard, part)
            first = Position(part[0][0], part[0][1])
            headers = {
                "Nats-Msg-Id": f"{first.token()}+{len(part)}@{self._session}.{self._last}",
                "Nats-Expected-Stream": EVENTS_STREAM,
                "Nats-Expected-Last-Subject-Sequence": str(self._last),
            }
            ack = await self._publisher.publish(events_subject(self._shard), payload, headers)
            if ack.duplicate:
                raise BusLost("a publication was taken for an older one")
            self._last = ack.seq
            cursors.advance(part)
        return len(parts)

    async def check(self) -> None:
        """Raise `BusLost` if the stream is gone, or another one than ours."""
        if (await events_stream(self._bus)).identity != self._stream:
            raise BusLost("the events stream was made anew")

    async def tell_heads(self, cursors: Cursors) -> None:
        """Publish how far the shard's buckets are; nobody acknowledges, the next one comes soon."""
        message = HeadsMessage(
            v=VERSION,
            shard=self._shard,
            at=time.time_ns() // 1_000,
            heads=cursors.heads,
            published=cursors.lagging(),
            stream=self._stream,
            sequence=self._last,
        )
        await self._bus.client.publish(heads_subject(self._shard), encode_heads(message))


async def open_outlet(bus: Bus, shard: ShardId) -> tuple[Outlet, Cursors]:
    """An outlet for the shard's events, and how far the stream says they are published."""
    facts = await events_stream(bus)
    last = await _last_of(bus, EVENTS_STREAM, events_subject(shard))
    last_sequence = int(last.seq) if last is not None and last.seq else 0
    published = await _published(bus, shard, facts, last_sequence)
    outlet = Outlet(bus, await Publisher.open(bus), shard, facts.identity, last_sequence)
    return outlet, Cursors(published, limits.bus_restart_events_max)


async def _published(bus: Bus, shard: ShardId, facts: StreamFacts, last: int) -> dict[Bucket, int]:
    """How far each bucket is published: the shard's last heads, and the events that the stream has after them.

    Empty, so that every bucket starts at a recent point, if there are no such heads, or if they are those of another
    stream, or if the stream lost messages that they count on. Messages that became too old are no loss.
    """
    found = await _last_of(bus, HEADS_STREAM, heads_subject(shard))
    try:
        heads = decode_heads(found.data or b"") if found is not None else None
    except BadMessage:
        heads = None
    if heads is None or heads.stream != facts.identity or (last < heads.sequence and facts.first <= heads.sequence):
        return {}
    published = heads.published_of()
    sequence, read = heads.sequence, 0
    while sequence < last:
        message = await bus.stream.get_msg(EVENTS_STREAM, sequence + 1, subject=events_subject(shard), next=True)
        read += 1
        if read > limits.bus_replay_messages_max:
            return {}
        try:
            replay(published, decode_events(message.data))
        except BadMessage:
            return {}
        sequence = message.seq
    return published


async def _last_of(bus: Bus, stream: str, subject: str) -> RawStreamMsg | None:
    try:
        found: RawStreamMsg = await bus.stream.get_last_msg(stream, subject)
    except NotFoundError as error:
        if error.err_code == _NO_MESSAGE:
            return None
        raise
    except nats.errors.NoRespondersError as error:
        raise BusLost("JetStream is not there") from error
    return found


_NO_MESSAGE = 10037  # the stream is there, a message of that subject is not
