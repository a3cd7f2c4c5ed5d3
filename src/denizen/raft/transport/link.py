"""The outgoing connection to one peer: kept up, made again when it breaks, and bounded.

Each node connects to each peer and sends only on its own connection; what it receives comes on the peer's. A frame
that cannot be sent now is dropped and counted, never queued without bound: Raft sends again what matters.
"""

import asyncio
import socket
from collections.abc import Callable
from random import uniform

from denizen.raft import limits
from denizen.raft.errors import PeerRefused
from denizen.raft.settings import Tls
from denizen.raft.transport.channel import Channel
from denizen.raft.transport.handshake import Local, connect


class Link:
    """One peer's connection and the task that keeps it."""

    def __init__(
        self, local: Local, peer: int, address: str, tls: Tls | None, on_change: Callable[[int, bool], None]
    ) -> None:
        self.peer = peer
        self.address = address
        self.refusal: str | None = None
        """Why the peer refused the last connection, for the status."""
        self._local, self._tls, self._on_change = local, tls, on_change
        self._channel: Channel | None = None
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"raft link to {peer}")

    @property
    def up(self) -> bool:
        """Whether frames can be sent now."""
        return self._channel is not None

    def send(self, frame: bytes) -> bool:
        """Send a frame, or drop it and return False: the link is down, or the peer far too slow."""
        channel = self._channel
        if channel is None or channel.backlog > limits.peer_queue_bytes_max:
            return False
        channel.send(frame)
        return True

    async def stop(self) -> None:
        """End the task and close the connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        pause_ms = limits.reconnect_ms_min
        while True:
            channel: Channel | None = None
            try:
                channel = await self._open()
                self.refusal, pause_ms = None, limits.reconnect_ms_min
                await self._use(channel)
            except PeerRefused as error:
                self.refusal = str(error)
            except OSError as error:
                self.refusal = f"{self.address} does not answer: {error}"
            except TimeoutError:
                self.refusal = f"{self.address} does not answer"
            except ValueError as error:  # no address that can be called
                self.refusal = str(error)
            finally:
                if channel is not None:
                    channel.abort()
            await asyncio.sleep(uniform(0.5, 1.0) * pause_ms / 1000)  # noqa: S311 - spreads reconnects, no secret
            pause_ms = min(pause_ms * 2, limits.reconnect_ms_max)

    async def _open(self) -> Channel:
        host, port = split_address(self.address)
        loop = asyncio.get_running_loop()
        context = self._tls.client if self._tls is not None else None
        async with asyncio.timeout(limits.connect_s):
            transport, channel = await loop.create_connection(Channel, host, port, ssl=context)
        keep_short(transport)
        try:
            async with asyncio.timeout(limits.handshake_s):
                await connect(channel, self._local, self.peer)
        except BaseException:
            channel.abort()
            raise
        return channel

    async def _use(self, channel: Channel) -> None:
        """Offer the connection until it breaks."""
        closed = asyncio.Event()
        channel.listen(lambda frame: None, closed.set)
        self._channel = channel
        self._on_change(self.peer, True)
        try:
            await closed.wait()
        finally:
            self._channel = None
            self._on_change(self.peer, False)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` in its parts. Raises `ValueError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def keep_short(transport: asyncio.BaseTransport) -> None:
    """Notice a peer that is silently gone within seconds, where the system can (TCP_USER_TIMEOUT)."""
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if connection is not None and option is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, option, int(limits.unacknowledged_s * 1000))
