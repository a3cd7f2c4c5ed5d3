"""The listener: takes connections, as many as there may be, watches over their time, and ends them in order."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial

import structlog

from denizen import limits
from denizen.errors import BadConfiguration
from denizen.http.connections import Connection, Exchange

_log = structlog.get_logger()


class Listener:
    """Listens on one address from its start to its stop; every request is given to `answer`."""

    def __init__(self, answer: Callable[[Exchange], Awaitable[None]], host: str, port: int) -> None:
        """`BadConfiguration` if nobody can listen there."""
        self.answer = answer
        self.date = formatdate(usegmt=True)
        self.stopping = False
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[object]] = set()
        self._accepts = False
        self._empty = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        try:
            self._socket = socket.create_server(
                (host, port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=limits.connections_max,
                dualstack_ipv6=":" in host and socket.has_dualstack_ipv6(),  # `::` is every address, the old ones too
            )
        except OSError as error:
            raise BadConfiguration(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._socket.setblocking(False)
        found = self._socket.getsockname()[1]  # if port 0 was asked for
        self.address = f"[{host}]:{found}" if ":" in host else f"{host}:{found}"

    def start(self) -> None:
        """Begin to take connections, on the running loop."""
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch(), name="http listener")
        self._accept_on()

    async def stop(self, drain_s: float) -> bool:
        """Take no more connections, end those that are there; whether their requests were finished within `drain_s`."""
        self.stopping = True
        self._accept_off()
        self._socket.close()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.end_soon()
        finished = True
        try:
            async with asyncio.timeout(drain_s):
                await self._until_empty()
        except TimeoutError:
            finished = False
            for connection in list(self._connections):
                connection.abort()
            await self._until_empty()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        return finished

    def joined(self, connection: Connection) -> None:
        """A connection was made."""
        self._connections.add(connection)
        if self.stopping:
            connection.close()

    def left(self, connection: Connection) -> None:
        """A connection is gone; another one may come."""
        self._connections.discard(connection)
        self._empty.set()
        self._accept_on()

    async def _until_empty(self) -> None:
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def _accept_on(self) -> None:
        if not self._accepts and not self.stopping:
            self._accepts = True
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept_off(self) -> None:
        if self._accepts:
            self._accepts = False
            asyncio.get_running_loop().remove_reader(self._socket)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._connections) + len(self._opening) < limits.connections_max:
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no descriptor is left, for example
                _log.warning("connection_not_accepted", error=error.strerror)
                break
            client.setblocking(False)
            task = loop.create_task(self._open(client))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._accept_off()  # until one leaves, or the next look

    async def _open(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(partial(Connection, self), client)
        except OSError:
            client.close()  # it left at once

    async def _keep_watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limits.connections_look_s)
            self.date = formatdate(usegmt=True)
            self._accept_on()
            now = loop.time()
            for connection in list(self._connections):
                connection.look(now)
