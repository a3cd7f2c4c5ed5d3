"""What the event plane takes from appends: sign-ups over HTTP, as fast as they go, with and without it.

Without means that relay and projector are stopped (SIGSTOP) in the midst of the same deployment; with, that they run,
have caught up, and follow. The rounds alternate. Load, gateway, servers, relay and projectors share the cores, and the
load leaves none of them idle, so whatever relay and projectors use is taken from the appends, but for what they put
off: they run at a lower priority, and are behind for a moment after such a rush. How long is told too.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from denizen.bench.cqrs.plant import Plant
from denizen.bench.http_load import drive
from denizen.bench.report import Figure, ratio

LANES = 64
BAR = 0.9


def measure(plant: Plant, seconds: float, rounds: int) -> list[Figure]:
    """Alternate, and compare."""
    alone: list[float] = []
    beside: list[float] = []
    behind: list[float] = []
    processor: dict[str, list[float]] = {}
    _sign_up(plant, 1)
    for _ in range(rounds):
        uvloop.run(plant.until_level())
        with _stopped(plant):
            alone.append(_sign_up(plant, seconds))
        uvloop.run(plant.until_level())
        before = plant.used()
        beside.append(_sign_up(plant, seconds))
        behind.append(uvloop.run(plant.until_level()))
        for part, used in plant.used().since(before).items():
            processor.setdefault(part, []).append(used / (beside[-1] * seconds) * 1e6)
    return [
        Figure("sign-ups a second without relay and projectors", tuple(alone), "/s"),
        Figure("sign-ups a second with them", tuple(beside), "/s"),
        ratio("appends with relay and projectors", beside, alone, BAR),
        Figure("read models level again after the rush", tuple(behind), "s"),
        *(Figure(f"{part}, processor time of a sign-up", tuple(used), "µs") for part, used in processor.items()),
    ]


def _sign_up(plant: Plant, seconds: float) -> float:
    target = plant.target
    done = uvloop.run(drive(target.host, target.port, lambda _: target.creation(), lanes=LANES, seconds=seconds))
    if done.failed or not done.succeeded:
        raise RuntimeError(f"{done.failed} of {done.failed + done.succeeded} requests failed")
    return done.per_second


@contextmanager
def _stopped(plant: Plant) -> Iterator[None]:
    pids = plant.pids("relay", "projector")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
