"""Requests to the test server, and what comes back."""

import io
import uuid
from typing import Any

import aiohttp
import msgspec

from denizen.testing.http import RunningServer


class Answer(msgspec.Struct):
    """What came back."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["content-type"] == "application/problem+json", self.raw
        assert self.json["type"] == f"/problems/{self.json['code']}"
        assert self.json["status"] == self.status
        return str(self.json["code"])


class Api:
    """Requests to the server with one key."""

    def __init__(self, session: aiohttp.ClientSession, server: RunningServer, key: str | None) -> None:
        self.session = session
        self.server = server
        self.key = key

    async def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        data: Any = raw
        if body is not None:
            data = msgspec.json.encode(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
            if len(data) > 1 << 20:
                data = io.BytesIO(data)
        url = aiohttp.client.URL(self.server.url + path, encoded=True)
        async with self.session.request(
            method, url, data=data, headers=sent, skip_auto_headers=["Content-Type", "User-Agent"]
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def user(self, **fields: Any) -> Any:
        """A new user's document."""
        answer = await self("POST", "/v1/users", {"email": some_email(), **fields})
        assert answer.status == 201, answer.raw
        return answer.json

    def with_key(self, key: str | None) -> "Api":
        return Api(self.session, self.server, key)


def some_email() -> str:
    """An email address that no other test has."""
    return f"{uuid.uuid4().hex}@example.org"
