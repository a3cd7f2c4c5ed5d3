"""All connections of one node: a server for the peers' frames and a link to each peer for its own."""

import asyncio
import socket
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
        self._listener: socket.socket | None = None
        self._links: dict[int, Link] = {}
        self._welcoming: dict[asyncio.Task[None], list[socket.socket]] = {}
        """The handshakes under way, each with its socket until it has begun."""
        self._incoming: set[Channel] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self.present: Counter[int] = Counter()
        """The peers that are connected to this node, with the number of their connections."""
        self.refused = 0
        self.dropped = 0

    async def start(self, address: str) -> None:
        """Listen on `host:port`."""
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        self._listener = socket.create_server(place[:2], family=family, backlog=limits.incoming_connections_max)
        self._listener.setblocking(False)
        loop.add_reader(self._listener, self._accept)

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
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await asyncio.gather(*(link.stop() for link in self._links.values()), *self._leaving)
        self._links.clear()
        for task in self._welcoming:
            task.cancel()
        await asyncio.gather(*self._welcoming, return_exceptions=True)
        for channel in list(self._incoming):
            channel.abort()

    def _accept(self) -> None:
        """Take one connection. Done by hand: `asyncio.Server` of Python 3.11 loses some when it is closed."""
        try:
            connection = self._listener.accept()[0] if self._listener is not None else None
        except OSError:  # out of file descriptors, or the peer left at once
            self.refused += 1
            return
        if connection is None:
            return
        if len(self._incoming) + len(self._welcoming) >= limits.incoming_connections_max:
            self.refused += 1
            connection.close()
            return
        connection.setblocking(False)
        unbegun = [connection]
        task = asyncio.get_running_loop().create_task(self._welcome(unbegun))
        self._welcoming[task] = unbegun
        task.add_done_callback(self._welcomed)

    def _welcomed(self, task: "asyncio.Task[None]") -> None:
        for connection in self._welcoming.pop(task):  # cancelled before it began
            connection.close()

    async def _welcome(self, unbegun: list[socket.socket]) -> None:
        """The handshake of a new connection; afterwards its frames come by callback and no task is needed."""
        loop, context = asyncio.get_running_loop(), self._tls.server if self._tls is not None else None
        connection, channel = unbegun.pop(), Channel()
        try:
            async with asyncio.timeout(limits.handshake_s):
                transport, _ = await loop.connect_accepted_socket(lambda: channel, connection, ssl=context)
                keep_short(transport)
                remote = await accept(channel, self._local)
        except (PeerRefused, TimeoutError, OSError):
            self.refused += 1
            channel.close()
            return
        except asyncio.CancelledError:
            channel.abort()
            raise
        peer = remote.node
        self._incoming.add(channel)
        self.present[peer] += 1
        self._on_peer(peer, remote.address)
        channel.listen(lambda frame: self._on_frame(peer, frame), lambda: self._gone(channel, peer))

    def _gone(self, channel: Channel, peer: int) -> None:
        self._incoming.discard(channel)
        self.present[peer] -= 1
        if not self.present[peer]:
            del self.present[peer]
            self._on_peer(peer, None)
