"""The transport: nobody takes part without the secret, nothing is unbounded, a slow peer slows only itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from raft_cluster import eventually, free_ports

from denizen.raft import limits
from denizen.raft.errors import PeerRefused
from denizen.raft.transport import Local, Transport
from denizen.raft.transport.channel import Channel
from denizen.raft.transport.handshake import VERSION, connect

SECRET = b"0123456789abcdef"


class Peer:
    """A transport with what came in."""

    def __init__(
        self, node: int, *, secret: bytes = SECRET, cluster: str = "c", accepts=lambda node, disk: None
    ) -> None:
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.frames: list[tuple[int, bytes]] = []
        self.up: set[int] = set()
        local = Local(cluster, node, f"disk {node}", secret, self.address, accepts)
        self.transport = Transport(local, None, self._frame, self._link, lambda peer, address: None)

    def _frame(self, peer: int, frame: bytes) -> None:
        self.frames.append((peer, frame))

    def _link(self, peer: int, up: bool) -> None:
        (self.up.add if up else self.up.discard)(peer)

    def refusal(self, peer: int) -> str:
        return self.transport.refusals().get(peer, "")


@asynccontextmanager
async def running(*peers: Peer) -> AsyncIterator[None]:
    for peer in peers:
        await peer.transport.start(peer.address)
    try:
        yield
    finally:
        for peer in peers:
            await peer.transport.stop()


async def dial(address: str) -> Channel:
    host, port = address.split(":")
    _, channel = await asyncio.get_running_loop().create_connection(Channel, host, int(port))
    return channel


async def test_frames_arrive_in_order_from_who_sent_them():
    one, two = Peer(1), Peer(2)
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: 2 in one.up)
        sent = [bytes([size % 251]) * size for size in range(0, 200_000, 20_001)]
        for frame in sent:
            assert one.transport.send(2, frame)
        await eventually(lambda: len(two.frames) == len(sent))
        assert two.frames == [(1, frame) for frame in sent]


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (lambda: Peer(1, secret=b"another secret!!"), "secret"),
        (lambda: Peer(1, cluster="other"), "cluster"),
    ],
)
async def test_a_stranger_is_refused_and_told_why(stranger, reason):
    one, two = stranger(), Peer(2)
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: reason in one.refusal(2))
        assert not one.transport.send(2, b"let me in")
        assert two.frames == []
        assert two.transport.refused > 0


async def test_an_acceptor_without_the_secret_is_refused_by_the_connector():
    one, two = Peer(1), Peer(2, secret=b"another secret!!")
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: one.refusal(2))
        assert 2 not in one.up


async def test_another_node_at_the_address_is_refused():
    one, three = Peer(1), Peer(3)
    async with running(one, three):
        one.transport.set_peers({2: three.address})
        await eventually(lambda: "this is node 3" in one.refusal(2))


async def test_a_node_that_came_back_with_another_disk_is_refused():
    two = Peer(2, accepts=lambda node, disk: "its disk was wiped" if disk == "disk 1" else None)
    one = Peer(1)
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: "its disk was wiped" in one.refusal(2))


async def test_another_version_is_refused_with_both_versions_named():
    two = Peer(2)
    async with running(two):
        channel = await dial(two.address)
        channel.send(msgspec.msgpack.encode({"version": VERSION + 1, "cluster": "c", "from": 1, "to": 2}))
        answer = msgspec.msgpack.decode(await channel.receive())
        assert f"version {VERSION}" in answer["refused"]
        assert f"the peer {VERSION + 1}" in answer["refused"]
        await eventually(lambda: channel.closed)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1"])
async def test_noise_and_oversized_frames_end_the_connection(noise):
    two = Peer(2)
    async with running(two):
        reader, writer = await asyncio.open_connection(*two.address.split(":"))
        writer.write(noise)
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: two.transport.refused == 1)


async def test_a_frame_beyond_the_limit_ends_an_open_connection(monkeypatch):
    one, two = Peer(1), Peer(2)
    monkeypatch.setattr(limits, "frame_bytes_max", 100_000)
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: 2 in one.up)
        one.transport.send(2, b"x" * 100_000)
        await eventually(lambda: 2 not in one.up)
        await eventually(lambda: 2 in one.up)
        assert two.frames == []


async def test_a_changed_frame_ends_the_connection():
    """Somebody between the nodes who lets the handshake pass and then turns one bit."""
    one, two = Peer(1), Peer(2)
    tampering = False

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data[:-1] + bytes([data[-1] ^ 1]) if tampering else data)
                await writer.drain()
        finally:
            writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*two.address.split(":"))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)

    async with running(one, two):
        server = await asyncio.start_server(between, "127.0.0.1", 0)
        one.transport.set_peers({2: f"127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        await eventually(lambda: 2 in one.up)
        one.transport.send(2, b"pay 1")
        await eventually(lambda: two.frames)
        tampering = True
        one.transport.send(2, b"pay 1")
        await eventually(lambda: 2 not in one.up)
        assert two.frames == [(1, b"pay 1")]
        await one.transport.stop()
        server.close()


async def test_a_replayed_handshake_is_refused():
    """The bytes of a good handshake, sent again, do not answer a new challenge."""
    two = Peer(2)
    async with running(two):
        recorded: list[bytes] = []
        channel = await dial(two.address)
        send = channel.send
        channel.send = lambda body: (recorded.append(body), send(body))[1]  # type: ignore[method-assign,assignment]
        await connect(channel, Local("c", 1, "disk 1", SECRET), 2)
        channel.abort()
        again = await dial(two.address)
        again.send(recorded[0])
        await again.receive()
        again.send(recorded[1])
        assert "secret" in msgspec.msgpack.decode(await again.receive())["refused"]
        with pytest.raises(PeerRefused):
            await again.receive()


async def test_a_peer_that_does_not_read_costs_bounded_memory(monkeypatch):
    monkeypatch.setattr(limits, "peer_queue_bytes_max", 1 << 20)
    one, two = Peer(1), Peer(2)
    async with running(one, two):
        one.transport.set_peers({2: two.address})
        await eventually(lambda: 2 in one.up)
        for channel in two.transport._incoming:
            channel._transport.pause_reading()
        frame = b"x" * 100_000
        accepted = sum(one.transport.send(2, frame) for _ in range(1000))
        link = one.transport._links[2]
        assert accepted < 1000
        assert one.transport.dropped == 1000 - accepted
        assert link._channel is not None
        assert link._channel.backlog <= (1 << 20) + len(frame) + 100


async def test_more_connections_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "incoming_connections_max", 3)
    two = Peer(2)
    async with running(two):
        writers = [(await asyncio.open_connection(*two.address.split(":")))[1] for _ in range(6)]
        await eventually(lambda: two.transport.refused == 3)
        for writer in writers:
            writer.close()
