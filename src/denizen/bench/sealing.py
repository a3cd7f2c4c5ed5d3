"""What sealing costs a registration: processor time of everything that takes part, with and without it, in turn.

    denizen bench sealing

Users with an email and a username are registered as fast as it goes, over two shards on a throwaway server. Machines
are shared, so it is processor time that counts: of this process, which runs the engine of a gateway, and of all
PostgreSQL processes, for each user. "Without" exists only here: keys are neither made nor wrapped, data are written as
they are, and names in other buckets leave no trace at all in their events, so that it is cheaper than a program without
sealing could be. HTTP is left out; with it, the share is smaller still.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from denizen.bench.processes import processor_seconds_of_tree
from denizen.bench.report import Figure, Report, publish
from denizen.events import appending
from denizen.service import Context
from denizen.service.gateway import Gateway
from denizen.testing.gateway import running_gateway
from denizen.testing.pool import DatabasePool
from denizen.testing.postgres import throwaway_server
from denizen.users.commands import Registration
from denizen.users.state import Name

CLIENTS = 64
_BY = Context("key:bench")
_numbers = itertools.count()


def measure(rounds: int, seconds: float) -> list[Figure]:
    """Register for so long, `rounds` times with and without, in turn."""
    with throwaway_server() as server, DatabasePool(server).databases(2) as databases:
        sealed, plain = asyncio.run(_rounds(databases, rounds, seconds))
    share = tuple((one / other - 1) * 100 for one, other in zip(sealed, plain, strict=True))
    return [
        Figure("processor time of a registration, sealed", tuple(sealed), "µs"),
        Figure("processor time of a registration, not sealed", tuple(plain), "µs"),
        Figure("what sealing adds, round by round", share, "%", "≤ 10", at_most=10),
        Figure("what it adds, by the medians", ((median(sealed) / median(plain) - 1) * 100,), "%", "≤ 10", at_most=10),
    ]  # fmt: skip


async def _rounds(databases: list[Any], rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    sealed: list[float] = []
    plain: list[float] = []
    async with running_gateway(databases) as gateway:
        await _register(gateway, seconds)  # everything is warm
        for number in range(rounds):
            for is_sealed in (True, False) if number % 2 else (False, True):
                if is_sealed:
                    sealed.append(await _register(gateway, seconds))
                else:
                    with _unsealed():
                        plain.append(await _register(gateway, seconds))
    return sealed, plain


async def _register(gateway: Gateway, seconds: float) -> float:
    """Register users for so long; the processor time of each, in microseconds."""
    began, end, done = processor_seconds_of_tree(os.getpid()), time.monotonic() + seconds, 0

    async def client() -> None:
        nonlocal done
        while time.monotonic() < end:
            number = next(_numbers)
            registration = Registration(
                email=f"sealing.{number}@example.com",
                username=f"sealing-{number}",
                name=Name("Ada", "Lovelace"),
                country="GB",
                locale="en-GB",
                attributes={"plan": "gold", "newsletter": True},
            )
            await gateway.users.register(registration, _BY)
            done += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await gateway.names.drain()
    return (processor_seconds_of_tree(os.getpid()) - began) / done * 1e6


@contextmanager
def _unsealed() -> Iterator[None]:
    """Appends as they would be without sealing."""
    changed: dict[str, Any] = {
        "new_key": lambda _: (None, object()),
        "seal": lambda _cipher, _stream, _version, _number, _schema, data: data,
        "seal_name": lambda _stream, _value: None,
    }
    kept = {name: getattr(appending, name) for name in changed}
    try:
        for name, replacement in changed.items():
            setattr(appending, name, replacement)
        yield
    finally:
        for name, original in kept.items():
            setattr(appending, name, original)


def run(rounds: int, seconds: float) -> Report:
    """Measure, and write bench-results/sealing.json."""
    return publish("sealing", measure(rounds, seconds), {"rounds": rounds, "seconds": seconds, "clients": CLIENTS})
