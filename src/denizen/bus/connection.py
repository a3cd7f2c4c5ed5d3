"""A connection to NATS that is either there or over.

The client's own reconnecting is not used: it buffers, repeats and forgets in ways of its own. Whoever works with the
bus opens a connection, works until something is in doubt, closes it, and begins again from what the stream holds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
from nats.aio.client import Client

from denizen import limits
from denizen.bus.settings import BusSettings


class BusLost(Exception):
    """The connection, the stream or the consumer is gone, or something about it is in doubt."""


# Whatever the bus may throw at us. It is never an error of the product: we begin again.
TROUBLE = (BusLost, nats.errors.Error, OSError, TimeoutError, asyncio.IncompleteReadError)


class Bus:
    """An open connection."""

    def __init__(self, client: Client, lost: asyncio.Event) -> None:
        self.client = client
        self.stream: Any = client.jetstream(timeout=limits.bus_request_s)
        self.lost = lost  # set for good when the connection is over

    def check(self) -> None:
        """Raise `BusLost` if the connection is over."""
        if self.lost.is_set() or not self.client.is_connected:
            raise BusLost("the connection to NATS is over")


@asynccontextmanager
async def connected(settings: BusSettings, name: str) -> AsyncIterator[Bus]:
    """A connection for the length of a `with` block; `TROUBLE` if there is none to be had now."""
    lost = asyncio.Event()

    async def closed() -> None:
        lost.set()

    async def quiet(_: Exception) -> None:
        return

    client = Client()
    try:
        async with asyncio.timeout(limits.bus_connect_s * len(settings.servers)):
            await _connect(client, settings, name=name, closed_cb=closed, disconnected_cb=closed, error_cb=quiet)
        yield Bus(client, lost)
    finally:
        await _close(client)


async def _connect(client: Client, settings: BusSettings, **options: Any) -> None:
    secrets: dict[str, Any] = {"user": settings.user, "password": settings.password, "token": settings.token}
    await client.connect(
        list(settings.servers),
        allow_reconnect=False,
        max_reconnect_attempts=0,
        connect_timeout=int(limits.bus_connect_s),
        ping_interval=5,
        max_outstanding_pings=2,
        **{key: value for key, value in secrets.items() if value is not None},
        **options,
    )


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(limits.close_deadline_s):
            await client.close()
    except TROUBLE:
        return
