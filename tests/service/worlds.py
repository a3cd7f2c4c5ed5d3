"""Small worlds for the tests of the service: shards, gateways over them, gateways that crash."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from denizen.events.records import Append, Outcome
from denizen.service import Context, Written
from denizen.service.gateway import Gateway
from denizen.service.sweeper import Sweeper
from denizen.testing.gateway import running_gateway
from denizen.testing.postgres import Database
from denizen.users.commands import Registration
from denizen.users.login_names import LoginName, LoginNameKind, login_name

BY = Context("key:test")


class World:
    """The shards of one deployment; any number of gateways over them."""

    def __init__(self, databases: list[Database]) -> None:
        self.databases = databases

    @asynccontextmanager
    async def gateway(self, **options: Any) -> AsyncIterator[Gateway]:
        """One more gateway; its sweeper leaves young changes alone, unless `sweep_grace_s` says otherwise."""
        async with running_gateway(self.databases, **{"sweep_grace_s": 60.0} | options) as gateway:
            yield gateway


class Crash(BaseException):
    """The gateway's process ended here."""


class Crashing:
    """Ends a gateway at its n-th append: before it is sent, or after it was done but before the answer is seen."""

    def __init__(self, gateway: Gateway, at: int, *, done: bool) -> None:
        self._submit = gateway.router.submit
        self._at, self._after = at, done
        self._count = 0
        self._router = gateway.router
        self.last: Append | None = None
        self.crashed = False
        gateway.router.submit = self.submit  # type: ignore[method-assign]

    def submit(self, append: Append) -> Awaitable[Outcome]:
        if self.crashed:
            raise Crash
        self._count += 1
        if self._count < self._at:
            return self._submit(append)
        self.crashed, self.last = True, append
        if not self._after:
            raise Crash
        return self._last(append)

    async def _last(self, append: Append) -> Outcome:
        await self._submit(append)
        raise Crash

    async def heal(self, gateway: Gateway) -> None:
        """Have the gateway work again, as a new process would."""
        await gateway.names.drain()
        del gateway.router.submit  # type: ignore[method-assign]


async def sweep(gateway: Gateway) -> None:
    """Sweep until nothing is left to settle."""
    sweeper = Sweeper(gateway.router, gateway.names, grace_s=0.0)
    for _ in range(50):
        if not await sweeper.sweep():
            return
        await asyncio.sleep(0)
    raise AssertionError("the sweeper does not come to an end")


async def settled(gateway: Gateway) -> None:
    """Wait until what gateways do behind their answers is done."""
    await gateway.names.drain()


def email(value: str) -> LoginName:
    return login_name(LoginNameKind.EMAIL, value)


def username(value: str) -> LoginName:
    return login_name(LoginNameKind.USERNAME, value)


async def ann(gateway: Gateway, name: str = "ann", **more: Any) -> Written:
    """Register somebody with an email and a username."""
    return await gateway.users.register(Registration(email=f"{name}@example.com", username=name, **more), BY)
