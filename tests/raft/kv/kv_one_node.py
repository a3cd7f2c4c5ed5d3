"""One node of the service in the test's own event loop, and plain HTTP to it."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from denizen.raft.kv.config import Config
from denizen.raft.kv.http.routes import client_token
from denizen.raft.kv.local_cluster import free_ports
from denizen.raft.kv.server import KeyValueServer

SECRET = "a secret of sixteen bytes or more"
TOKEN = client_token(SECRET.encode())


class OneNode:
    """A running node, with `post` and `get` that return status and decoded answer."""

    def __init__(self, server: KeyValueServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.url = server.url
        self.http = http

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    async def post(self, path: str, body: Any = None, *, token: str | None = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.http.post(
            f"{self.url}{path}", json=body if body is not None else {}, headers=headers
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, *, token: str | None = TOKEN) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.http.get(f"{self.url}{path}", headers=headers) as answer:
            return answer.status, await answer.text()

    async def ok(self, route: str, body: Any = None) -> Any:
        """Post to a route under /v1/kv that must succeed."""
        status, answer = await self.post(f"/v1/kv/{route}", body)
        assert status == 200, answer
        return answer

    async def raw(self, data: bytes, *, answers: int = 1) -> bytes:
        """Send bytes, return what comes back until the connection closes or so many heads have come."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        received = b""
        try:
            async with asyncio.timeout(5):
                while received.count(b"HTTP/1.1 ") < answers or not received.endswith((b"}", b"\n\n")):
                    part = await reader.read(65536)
                    if not part:
                        break
                    received += part
        finally:
            writer.close()
            await writer.wait_closed()
        return received


def one_node_config(directory: Path) -> Config:
    return Config(
        id=1, data=str(directory), peers={1: f"127.0.0.1:{free_ports(1)[0]}"}, http="127.0.0.1:0", secret=SECRET
    )
