"""A gateway that serves HTTP over throwaway databases, in a thread with a loop of its own.

It is the real thing (HTTP, engine, PostgreSQL) but for the process, so that a test can use any client, synchronous or
not, and share the server with other tests. Use logins of your own making: everything is in one deployment.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import uvloop
from msgspec import Struct

from denizen.http.server import listening
from denizen.http.services import Services
from denizen.operators.desk import Desk
from denizen.operators.measuring import ShardMeasures
from denizen.processes.ports import find_port
from denizen.projections.reading import ReadModels
from denizen.testing.control import one_voter
from denizen.testing.gateway import DEPLOYMENT, KINDS, running_gateway
from denizen.testing.postgres import Database
from denizen.testing.read_models import projecting
from denizen.users.login_names import LoginNameKind

START_S = 30.0
HOST = "127.0.0.1"


class RunningServer(Struct, frozen=True):
    """Where the server is, a key with the scope `admin`, and its insides for those who must look."""

    host: str
    port: int
    admin_key: str
    services: Services
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://{self.host}:{self.port}"


class _Thread:
    """The server's thread: started, told to stop, joined."""

    def __init__(
        self, databases: Sequence[Database], kinds: frozenset[LoginNameKind], read_database: Database | None
    ) -> None:
        self._databases = databases
        self._read_database = read_database
        self._kinds = kinds
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self.server: RunningServer | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="denizen test server", daemon=True)

    def start(self) -> RunningServer:
        self._thread.start()
        if not self._ready.wait(START_S) or self.server is None:
            raise RuntimeError("the test server does not start") from self.error
        return self.server

    def stop(self) -> None:
        if self.server is not None and self._stop is not None:
            self.server.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the starter raises it
            self.error = error
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(running_gateway(self._databases, kinds=self._kinds))
            reads = None
            if self._read_database is not None:
                await stack.enter_async_context(projecting(self._read_database, engine.router))
                reads = await stack.enter_async_context(ReadModels(self._read_database.connect_args))
            _, key = await engine.keys.create("tests", ["admin"])
            port = find_port(None, host=HOST)
            control = await stack.enter_async_context(one_voter(DEPLOYMENT, engine.router.map))
            places = {
                shard: database.connect_args
                for shard, database in zip(engine.router.map.shards, self._databases, strict=True)
            }
            desk = Desk(control, ShardMeasures(lambda: places))
            async with listening(engine, HOST, port, reads=reads, desk=desk) as services:
                self.server = RunningServer(HOST, port, key, services, asyncio.get_running_loop())
                self._ready.set()
                await self._stop.wait()


@contextmanager
def running_server(
    databases: Sequence[Database], *, kinds: frozenset[LoginNameKind] = KINDS, read_database: Database | None = None
) -> Iterator[RunningServer]:
    """A server over these databases, one shard each, for the length of the block.

    With an empty `read_database` there is a projector too, which keeps the read models in it.
    """
    thread = _Thread(databases, kinds, read_database)
    try:
        yield thread.start()
    finally:
        thread.stop()
