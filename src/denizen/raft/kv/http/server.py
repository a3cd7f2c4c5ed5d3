"""The listening side: accepts connections up to a bound, closes idle ones, and drains when it stops."""

import asyncio
import contextlib
from typing import cast

from denizen.raft.kv.http.protocol import Admit, BadHttp, Connection, Handler, Head
from denizen.raft.kv.limits import CONNECTION_IDLE_S, CONNECTIONS_MAX

_DRAIN_S = 2.0


class HttpServer:
    """Serves one handler on one address. Owns its connections and the task that closes idle ones."""

    def __init__(self, handler: Handler, admit: Admit) -> None:
        self._handler = handler
        self._admit = admit
        self._heads: dict[bytes, Head] = {}
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.address: tuple[str, int] = ("", 0)

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 chooses a free one (see `address`)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, host, port, reuse_address=True, backlog=1024)
        self.address = self._server.sockets[0].getsockname()[:2]
        self._sweeper = asyncio.create_task(self._close_idle())

    async def stop(self) -> None:
        """Take no new connection, let running requests finish for a moment, close everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        if connections:
            closing = [asyncio.create_task(connection.close()) for connection in connections]
            await asyncio.wait(closing, timeout=_DRAIN_S)
            for connection, task in zip(connections, closing, strict=True):
                task.cancel()
                connection.abort()
            await asyncio.gather(*closing, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _connect(self) -> asyncio.Protocol:
        if len(self._connections) >= CONNECTIONS_MAX:
            return _Refused()
        connection = Connection(self._handler, self._admit, self._heads, self._connections.discard)
        self._connections.add(connection)
        return connection

    async def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CONNECTION_IDLE_S / 10)
            oldest = loop.time() - CONNECTION_IDLE_S
            for connection in list(self._connections):
                if connection.last_used < oldest and not connection.streaming:
                    connection.abort()


class _Refused(asyncio.Protocol):
    """A connection beyond the bound: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refused = cast(asyncio.Transport, transport)
        refused.write(
            BadHttp(503, f"this node serves {CONNECTIONS_MAX} connections already: use another one").response()
        )
        refused.close()
