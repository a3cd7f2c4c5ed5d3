"""A network that can be cut: a TCP proxy for every ordered pair of nodes, in the test's own event loop.

A cut stalls the bytes as a broken cable does; nobody is told. Healing closes what was stalled, and the nodes connect
anew, as after a change of the route.
"""

import asyncio
import contextlib
import socket
from typing import Self

Pair = tuple[int, int]


class Mesh:
    """Give `peer_address` to a `LocalCluster`, then use as `async with`."""

    def __init__(self) -> None:
        self._listening: dict[Pair, tuple[socket.socket, str]] = {}
        self._servers: list[asyncio.Server] = []
        self._open: dict[Pair, set[asyncio.Task[None]]] = {}
        self._cut: set[Pair] = set()
        self._whole = asyncio.Event()

    def peer_address(self, caller: int, callee: int, address: str) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        self._listening[caller, callee] = (listening, address)
        return f"127.0.0.1:{listening.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        for pair, (listening, address) in self._listening.items():
            self._open[pair] = set()

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: Pair = pair, address: str = address
            ) -> None:
                task = asyncio.current_task()
                assert task is not None
                self._open[pair].add(task)
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await self._connect(pair, address, reader, writer)
                self._open[pair].discard(task)

            self._servers.append(await asyncio.start_server(serve, sock=listening))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        await self._close(set(self._open))
        for server in self._servers:
            await server.wait_closed()

    def cut(self, one: int, other: int) -> None:
        """Let nothing through between two nodes, in both directions."""
        self._whole.clear()
        self._cut |= {(one, other), (other, one)}

    def cut_off(self, node: int, others: list[int]) -> None:
        for other in others:
            if other != node:
                self.cut(node, other)

    def mute(self, speaker: int, listener: int) -> None:
        """Let nothing through from one node to another; the other way stays open."""
        self._whole.clear()
        self._cut.add((speaker, listener))

    async def heal(self) -> None:
        """Let everything through again."""
        stalled, self._cut = self._cut, set()
        self._whole.set()
        await self._close({pair for one, other in stalled for pair in ((one, other), (other, one))})

    async def _close(self, pairs: set[Pair]) -> None:
        tasks = [task for pair in pairs for task in self._open.get(pair, ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(
        self, pair: Pair, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        caller, callee = pair
        try:
            while (caller, callee) in self._cut or (callee, caller) in self._cut:
                await self._whole.wait()
            host, port = address.rsplit(":", 1)
            upstream, downstream = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(
                    self._pump(reader, downstream, (caller, callee)), self._pump(upstream, writer, (callee, caller))
                )
            finally:
                downstream.close()
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Pair) -> None:
        while data := await reader.read(1 << 16):
            while direction in self._cut:
                await self._whole.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")
