"""One node of the key-value service, whole: Raft, state machine, service and HTTP, started and stopped together."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Self

from denizen.raft.errors import RaftError
from denizen.raft.kv import errors
from denizen.raft.kv.config import Config
from denizen.raft.kv.http.admin import AdminRoutes
from denizen.raft.kv.http.etcd_gateway import EtcdGateway
from denizen.raft.kv.http.routes import Dispatcher, KeyRoutes, client_token
from denizen.raft.kv.http.server import HttpServer
from denizen.raft.kv.model import Publish
from denizen.raft.kv.service import KeyValueService, WatchedMachine
from denizen.raft.node import Node
from denizen.raft.transport.link import split_address

_PUBLISH_AGAIN_S = 1.0


class KeyValueServer:
    """Serves the configuration's node. Owns everything it is made of."""

    def __init__(self, config: Config) -> None:
        config.check()
        self._config = config
        self._machine = WatchedMachine()
        self._node = Node(config.id, config.data, config.peers, self._machine, config.settings(), join=config.join)
        self._service = KeyValueService(self._node, self._machine)
        token = client_token(config.secret_bytes())
        admin = AdminRoutes(self._node, self._service, config.cluster)
        gateway = EtcdGateway(self._service, admin, token)
        self.routes = admin.routes() | KeyRoutes(self._service).routes() | gateway.routes()
        dispatcher = Dispatcher(token, self.routes)
        self._http = HttpServer(dispatcher, dispatcher.knows)
        self._publisher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where clients reach this node."""
        host, port = self._http.address
        return self._config.advertise or f"http://{host}:{port}"

    async def start(self) -> None:
        """Take part in the cluster and serve clients; raises the errors of `Node.start`."""
        await self._node.start()
        try:
            await self._service.start()
            await self._http.start(*split_address(self._config.http))
        except BaseException:
            await self._stop_in_order(self._service.stop(), self._node.stop())
            raise
        self._publisher = asyncio.create_task(self._publish())

    async def wait_stopped(self) -> RaftError | None:
        """Return when the Raft node has stopped: the error that it stopped itself for, if any."""
        return await self._node.wait_stopped()

    async def stop(self) -> None:
        """Hand the leadership on, finish what clients wait for, close everything."""
        if self._publisher is not None:
            self._publisher.cancel()
        if self._node.is_leader:
            with contextlib.suppress(RaftError, TimeoutError):
                await asyncio.wait_for(self._node.transfer_leadership(), 1.0)
        await self._stop_in_order(self._service.stop(), self._http.stop(), self._node.stop())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @staticmethod
    async def _stop_in_order(*parts: Awaitable[None]) -> None:
        for part in parts:
            await part

    async def _publish(self) -> None:
        """Tell the cluster this node's URL, as soon as there is a leader to tell it to."""
        while self._service.store.urls.get(self._config.id) != self.url:
            with contextlib.suppress(errors.KeyValueError):
                await self._service.submit(Publish(self._config.id, self.url))
                return
            await asyncio.sleep(_PUBLISH_AGAIN_S)
