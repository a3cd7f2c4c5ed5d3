"""A TCP proxy before a server, that can swallow replies, freeze, and refuse connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from denizen.testing.postgres import Database


class Proxy:
    """Passes bytes both ways until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut_next_reply = False  # the server gets the request, the client a closed connection instead of the answer
        self.replies_cut = 0
        self.refusing = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.close()
            return
        self.connections += 1
        try:
            upstream = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, upstream[1]}
        await asyncio.gather(self._pass(reader, upstream[1], False), self._pass(upstream[0], writer, True))
        self._writers -= {writer, upstream[1]}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool) -> None:
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                if replies and self.cut_next_reply:
                    self.cut_next_reply = False
                    self.replies_cut += 1
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut_all(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def proxied(database: Database) -> AsyncIterator[tuple[Proxy, dict[str, Any]]]:
    """A proxy before the database's server, and the arguments of `asyncpg.connect` that lead through it."""
    address = database.dsn.rpartition("@")[2].partition("/")[0]
    host, _, port = address.partition(":")
    proxy = Proxy(host, int(port))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    here = server.sockets[0].getsockname()[1]
    try:
        yield proxy, {"dsn": database.dsn, "host": "127.0.0.1", "port": here}
    finally:
        server.close()
        proxy.flowing.set()
        proxy.cut_all()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
