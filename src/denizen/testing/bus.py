"""A throwaway NATS server for tests: real, with JetStream, gone afterwards; and feeds that are collected."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from denizen.bus.batches import Feed
from denizen.bus.server import NatsPlan, NatsServer
from denizen.events.records import RecordedEvent
from denizen.testing.postgres import reachable_directory


@contextmanager
def throwaway_nats() -> Iterator[NatsServer]:
    """Run a NATS server for the length of a `with` block; call from the main thread."""
    with reachable_directory() as directory:
        server = NatsServer(plan_in(directory))
        server.start()
        try:
            server.wait_ready()
            yield server
        finally:
            server.stop()


def plan_in(directory: Path) -> NatsPlan:
    """How a server runs whose files are all in this directory."""
    return NatsPlan(
        data=directory / "bus",
        log=directory / "nats.log",
        password=secrets.token_urlsafe(16),
        retention_bytes=256 << 20,
    )


class Collected:
    """Everything that a feed gave, by bucket, with each bucket's order checked as it comes."""

    def __init__(self) -> None:
        self.events: dict[int, list[RecordedEvent]] = {}
        self.count = 0

    def add(self, events: list[RecordedEvent], first: int = 1) -> None:
        """Take events; `AssertionError` unless each is the next of its bucket, the very first being `first`."""
        for event in events:
            known = self.events.setdefault(event.position.bucket, [])
            expected = known[-1].position.sequence + 1 if known else first
            if event.position.sequence != expected:
                raise AssertionError(f"{event.position} came where {expected} was next")
            known.append(event)
            self.count += 1


async def collect(feed: Feed, events: int, seconds: float = 20.0, into: Collected | None = None) -> Collected:
    """Take from the feed until `events` were collected in all. Raises `TimeoutError`."""
    collected = into or Collected()
    async with asyncio.timeout(seconds):
        while collected.count < events:
            collected.add((await feed.next_batch(1_000, 1.0)).events)
    return collected
