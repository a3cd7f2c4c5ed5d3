"""Publishing to JetStream, one message after the other, each acknowledged before the next.

It does what the client's own `publish` does, with one inbox for all acknowledgements instead of a request for each
message. A relay publishes a hundred times a second, and the requests were a good part of what it cost.
"""

import asyncio
from typing import Final

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg
from nats.js.errors import APIError

from denizen import limits
from denizen.bus.connection import Bus, BusLost


class Ack(Struct, frozen=True):
    """What JetStream answers: the message's sequence in its stream, and whether it had the message already."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, str | int] | None = None


_ack: Final = msgspec.json.Decoder(Ack).decode


class Publisher:
    """Open one with `Publisher.open`. After an error, open another: an acknowledgement may be on its way."""

    def __init__(self, bus: Bus) -> None:
        self._client = bus.client
        self._inbox = bus.client.new_inbox()
        self._answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, bus: Bus) -> "Publisher":
        """One on this connection; it ends with it."""
        publisher = cls(bus)
        await bus.client.subscribe(publisher._inbox, cb=publisher._hear)
        return publisher

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> Ack:
        """Publish a message; when this returns, JetStream has it. One caller at a time.

        Raises what JetStream answers else, `BusLost` if it is not there, `TimeoutError` if it does not answer.
        """
        self._answer = asyncio.get_running_loop().create_future()
        await self._client.publish(subject, payload, reply=self._inbox, headers=headers)
        async with asyncio.timeout(limits.bus_request_s):
            message = await self._answer
        if not message.data:  # no responders
            raise BusLost("JetStream is not there")
        ack = _ack(message.data)
        if ack.error is not None:
            raise APIError.from_error(ack.error)
        return ack

    async def _hear(self, message: Msg) -> None:
        if not self._answer.done():
            self._answer.set_result(message)
