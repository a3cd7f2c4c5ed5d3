"""Changes over HTTP at a steady rate, whatever becomes of them: an open loop, as many users are one.

A change is due at its time; if all connections are busy it waits, and the rate is made up for. So a slow moment of the
service does not slow the load down and hide itself. Each change is noted when its answer has come: who, and to which
version.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from msgspec import Struct

from denizen.bench.http_load import post

PEOPLE = 2_000  # who change again and again
CREATIONS = 0.25  # of all changes


class Change(Struct, frozen=True):
    """A change that was acknowledged, at this time of `time.monotonic`."""

    user_id: UUID
    version: int
    at: float


class Target:
    """A gateway, a key for it, and the users that this load has made."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self.host, self.port, self.key = host, port, key
        self.users: list[str] = []
        self._chance = random.Random(7)  # noqa: S311 - a load, not a secret
        self._round = os.urandom(4).hex()
        self._number = 0

    def creation(self) -> bytes:
        """The request that makes a new user."""
        self._number += 1
        name = f"{self._round}.{self._number}"
        user = {
            "email": f"{name}@example.com",
            "username": name,
            "name": {"given": self._chance.choice(("Ann", "Jürgen", "太郎")), "family": f"Smith{self._number % 997}"},
            "country": self._chance.choice(("DE", "FR", "JP")),
            "attributes": {"plan": self._chance.choice(("free", "gold"))},
        }
        return post(self.host, "/v1/users", json.dumps(user).encode(), self.key)

    def request(self) -> bytes:
        """The next request: one in four makes a user, the others change one."""
        if len(self.users) < PEOPLE or self._chance.random() < CREATIONS:
            return self.creation()
        kind = self._chance.random()
        if kind < 0.5:
            patch: dict[str, Any] = {"attributes": {"seen": self._chance.getrandbits(32)}}
        else:
            patch = {"display_name": f"Name {self._chance.getrandbits(24)}"}
        body = json.dumps(patch).encode()
        return post(self.host, f"/v1/users/{self._chance.choice(self.users)}", body, self.key).replace(
            b"POST", b"PATCH", 1
        )


class _Lane:
    """One connection: a request in flight, at most."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"content-length: ") + 16
        body = await self._reader.readexactly(int(head[at : head.index(b"\r", at)]))
        return int(head[9:12]), body

    def close(self) -> None:
        self._writer.close()


async def paced(
    target: Target, *, rate: float, seconds: float, lanes: int, acknowledged: Callable[[Change], None]
) -> int:
    """Send `rate` changes a second for so long; how many were refused, for example because two met at one user."""
    free: asyncio.Queue[_Lane] = asyncio.Queue()
    for _ in range(lanes):
        free.put_nowait(_Lane(*await asyncio.open_connection(target.host, target.port)))
    refused = 0
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes) -> None:
        nonlocal refused
        lane = await free.get()
        status, body = await lane.ask(request)
        at = time.monotonic()
        free.put_nowait(lane)
        if status >= 300:
            refused += 1
            return
        user = json.loads(body)
        if status == 201 and len(target.users) < PEOPLE:
            target.users.append(user["id"])
        acknowledged(Change(UUID(user["id"]), user["version"], at))

    began, started = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        while started < elapsed * rate:
            task = asyncio.create_task(one(target.request()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            started += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait().close()
    return refused
