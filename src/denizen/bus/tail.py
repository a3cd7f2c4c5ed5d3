"""Following the events stream from a place on, without acknowledgements.

A pull consumer of JetStream that lives only as long as we ask: messages come only when there is room for them, so
memory is bounded at both ends. There is nothing to acknowledge and nothing kept at the server; the reader knows where
it is. The server says at least once a second that it is there. Silence, or any word of trouble, ends the tail.
"""

import asyncio
import json
from typing import Any, Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from denizen import limits
from denizen.bus.connection import Bus, BusLost
from denizen.bus.settings import EVENTS_STREAM, EVENTS_SUBJECTS

_HEARTBEAT_S: Final = 1.0
_SILENCE_S: Final = 3.0
_REQUEST_S: Final = 30.0
_INACTIVE_S: Final = 30.0
_NANOSECOND: Final = 1_000_000_000
_REQUEST: Final = json.dumps(
    {
        "batch": limits.feed_pull_messages_max,
        "expires": int(_REQUEST_S * _NANOSECOND),
        "idle_heartbeat": int(_HEARTBEAT_S * _NANOSECOND),
    }
).encode()


class Tail:
    """Open one with `Tail.open`, ask `messages` again and again, `close` it."""

    def __init__(self, bus: Bus, consumer: str) -> None:
        self._bus = bus
        self._consumer = consumer
        self._inbox = bus.client.new_inbox()
        self._subscription: Subscription | None = None
        self._came: list[Msg] = []
        self._wake = asyncio.Event()
        self._asked = 0  # messages that the server still owes us
        self._trouble: str | None = None
        self.last = 0  # the stream's sequence of the last message given

    @classmethod
    async def open(cls, bus: Bus, after: int | None = None) -> "Tail":
        """Begin after that sequence of the stream, or with what is published from now on."""
        config: dict[str, Any] = {"deliver_policy": DeliverPolicy.NEW}
        if after is not None:
            config = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": after + 1}
        info = await bus.stream.add_consumer(
            EVENTS_STREAM,
            ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                filter_subject=EVENTS_SUBJECTS,
                inactive_threshold=_INACTIVE_S,
                mem_storage=True,
                num_replicas=1,
                **config,
            ),
        )
        tail = cls(bus, info.name)
        tail.last = after or 0
        tail._subscription = await bus.client.subscribe(tail._inbox, cb=tail._receive)
        return tail

    async def messages(self) -> list[bytes]:
        """The messages that came, in order; waits for some. `BusLost` if no more can come."""
        while not self._came:
            await self._ask()
            self._wake.clear()
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._wake.wait()
            except TimeoutError:
                raise BusLost("the stream is silent") from None
            self._bus.check()
            if self._trouble and not self._came:
                raise BusLost(self._trouble)
        came, self._came = self._came, []
        self.last = came[-1].metadata.sequence.stream
        return [message.data for message in came]

    async def close(self) -> None:
        """End it; the server forgets the consumer by itself if it cannot be told."""
        if self._subscription is not None and self._bus.client.is_connected:
            await self._subscription.unsubscribe()
            await self._bus.stream.delete_consumer(EVENTS_STREAM, self._consumer)

    async def _ask(self) -> None:
        if self._asked <= 0:
            self._asked = limits.feed_pull_messages_max
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{self._consumer}"
            await self._bus.client.publish(subject, _REQUEST, reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self._came.append(message)
            self._asked -= 1
        elif status == "408":  # the request's time is over
            self._asked = 0
        elif status != "100":
            self._trouble = f"{status} {(message.headers or {}).get('Description', '')}"
        self._wake.set()
