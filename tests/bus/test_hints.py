"""Gateways and their hints: quick with a bus, never in the way without one."""

import asyncio
import os
import signal
import time

from denizen.bus.hints import Hinter
from denizen.testing.bus import collect

from .plane import Plane
from .waiting import until


async def test_a_hint_brings_an_event_long_before_the_relay_would_look(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed:
        await until(lambda: feed.listening and all(relay.level for relay in plane.relays))
        await plane.append(1, buckets=[1])
        got = await collect(feed, 1)
        waits = []
        for count in range(2, 12):
            await plane.append(1, buckets=[1])
            began = time.monotonic()
            await collect(feed, count, into=got)
            waits.append(time.monotonic() - began)
        assert feed.counts()["bus"] >= 10
    assert sorted(waits)[5] < 0.1


async def test_appends_never_wait_for_a_bus_that_hangs(plane: Plane) -> None:
    plane.start_relays()
    async with plane.feed() as feed:
        await until(lambda: feed.listening)
        await plane.append(50)
        got = await collect(feed, 50)
        pid = plane.nats.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # connected, and silent
        try:
            async with asyncio.timeout(10):
                for _ in range(20):
                    began = time.monotonic()
                    await plane.append(50)
                    assert time.monotonic() - began < 1.0
            await collect(feed, 1_050, seconds=5, into=got)  # the feed goes on without it
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: feed.listening, seconds=20)
        await plane.append(50)
        await collect(feed, 1_100, into=got)


async def test_appends_go_on_without_any_bus(plane: Plane) -> None:
    plane.nats.kill()
    await plane.append(100)
    async with plane.feed() as feed:
        await collect(feed, 100)


async def test_a_hinter_that_never_connects_remembers_nothing(plane: Plane) -> None:
    plane.nats.kill()
    hinter = Hinter(plane.bus)
    appended = hinter.of(next(iter(plane.databases)))
    hinter.start()
    for _ in range(3):
        appended([], [])
        await asyncio.sleep(0)
    await hinter.stop()
    assert not hinter._news
