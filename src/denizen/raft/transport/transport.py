"""All connections of one node: a server for the peers' frames and a link to each peer for its own."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

from denizen.raft import limits
from denizen.raft.errors import PeerRefused
from denizen.raft.settings import Tls
from denizen.raft.transport.channel import Channel
from denizen.raft.transport.handshake import Local, accept
from denizen.raft.transport.link import Link, keep_short, split_address


class Transport:
    """Starts, uses and stops the connections. Callbacks run on the event loop.

    `on_frame(peer, frame)`: a frame of a peer that proved who it is. `on_link(peer, up)`: the own link to it changed.
    `on_peer(peer, address)`: it connected and says that it listens there, or left (then the address is None).
    """

    def __init__(
        self,
        local: Local,
        tls: Tls | None,
        on_frame: Callable[[int, bytes], None],
        on_link: Callable[[int, bool], None],
        on_peer: Callable[[int, str | None], None],
    ) -> None:
        self._local, self._tls = local, tls
        self._on_frame, self._on_link, self._on_peer = on_frame, on_link, on_peer
        self._server: asyncio.Server | None = None
        self._links: dict[int, Link] = {}
        self._incoming: dict[Channel, asyncio.Task[None] | None] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.present: Counter[int] = Counter()
        """The peers that are connected to this node, with the number of their connections."""
        self.refused = 0
        self.dropped = 0

    async def start(self, address: str) -> None:
        """Listen on `host:port`."""
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        context = self._tls.server if self._tls is not None else None
        self._server = await loop.create_server(lambda: Channel(self._accepted), host, port, ssl=context)

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Connect to exactly these peers, at these addresses."""
        for peer, link in list(self._links.items()):
            if addresses.get(peer) != link.address:
                del self._links[peer]
                task = asyncio.get_running_loop().create_task(link.stop())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        for peer, address in addresses.items():
            if peer not in self._links:
                self._links[peer] = Link(self._local, peer, address, self._tls, self._on_link)

    def send(self, peer: int, frame: bytes) -> bool:
        """Send a frame to a peer, or drop it and say so."""
        link = self._links.get(peer)
        if link is not None and link.send(frame):
            return True
        self.dropped += 1
        return False

    def up(self, peer: int) -> bool:
        """Whether the link to this peer stands."""
        link = self._links.get(peer)
        return link is not None and link.up

    def refusals(self) -> dict[int, str]:
        """Why peers cannot be reached now."""
        return {peer: link.refusal for peer, link in self._links.items() if link.refusal is not None}

    async def stop(self) -> None:
        """Close everything and end every task."""
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(link.stop() for link in self._links.values()), *self._leaving)
        self._links.clear()
        tasks = [task for task in self._incoming.values() if task is not None]
        for channel, task in list(self._incoming.items()):
            channel.abort()
            if task is not None:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _accepted(self, channel: Channel) -> None:
        if len(self._incoming) >= limits.incoming_connections_max:
            self.refused += 1
            channel.abort()
            return
        self._incoming[channel] = asyncio.get_running_loop().create_task(self._welcome(channel))

    async def _welcome(self, channel: Channel) -> None:
        """The handshake of a new connection; afterwards its frames come by callback and no task is needed."""
        try:
            keep_short(channel.transport)
            async with asyncio.timeout(limits.handshake_s):
                remote = await accept(channel, self._local)
        except (PeerRefused, TimeoutError, OSError):
            self.refused += 1
            channel.close()
            self._incoming.pop(channel, None)
            return
        peer = remote.node
        self._incoming[channel] = None
        self.present[peer] += 1
        self._on_peer(peer, remote.address)
        channel.listen(lambda frame: self._on_frame(peer, frame), lambda: self._gone(channel, peer))

    def _gone(self, channel: Channel, peer: int) -> None:
        self._incoming.pop(channel, None)
        self.present[peer] -= 1
        if not self.present[peer]:
            del self.present[peer]
            self._on_peer(peer, None)
