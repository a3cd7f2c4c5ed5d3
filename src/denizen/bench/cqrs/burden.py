"""What the event plane takes from appends: sign-ups over HTTP, as fast as they go, with and without it.

Without means that relay and projector are stopped (SIGSTOP) in the midst of the same deployment; with, that they run,
and have caught up. The two are measured in turns, and which comes first alternates, for the machine's speed drifts.
Load, gateway, servers, relay and projectors share the cores, and the load leaves little of them idle, so whatever relay
and projectors use is taken from the appends. In a rush they give way for some seconds (`bus.give_way_s`), and do
afterwards what they put off. So it is measured twice: at the beginning of a rush, and, in fewer rounds, when their
patience is over and they have caught up under the same load.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from denizen import limits
from denizen.bench.cqrs.plant import Plant
from denizen.bench.http_load import drive
from denizen.bench.report import Figure, ratio

LANES = 64
BAR = 0.9
LEVEL = 1_000  # events that the read models lack while they follow as always
CATCH_UP_S = 60.0
REST_S = 3.0  # before each measurement


def measure(plant: Plant, seconds: float, rounds: int) -> list[Figure]:
    """Alternate, and compare."""
    alone: list[float] = []
    rushing: list[float] = []
    lasting: list[float] = []
    behind: list[float] = []
    processor: dict[str, list[float]] = {}
    rush_s = min(seconds, limits.rush_patience_s)

    def without() -> None:
        _rest(plant)
        with _stopped(plant):
            alone.append(_sign_up(plant, rush_s))

    def beside() -> None:
        _rest(plant)
        rushing.append(_sign_up(plant, rush_s))

    _sign_up(plant, 1)
    for number in range(2 * rounds):
        for turn in (without, beside) if number % 2 == 0 else (beside, without):
            turn()
    for _ in range((rounds + 1) // 2):
        _rest(plant)
        _until_they_follow(plant)
        before = plant.used()
        lasting.append(_sign_up(plant, seconds))
        for part, used in plant.used().since(before).items():
            processor.setdefault(part, []).append(used / (lasting[-1] * seconds) * 1e6)
        behind.append(uvloop.run(plant.until_level()))
    return [
        Figure("sign-ups a second without relay and projectors", tuple(alone), "/s"),
        Figure("sign-ups a second with them, in a rush", tuple(rushing), "/s"),
        Figure("sign-ups a second with them, in a rush that lasts", tuple(lasting), "/s"),
        ratio("appends with relay and projectors, in a rush", rushing, alone, BAR),
        ratio("appends with relay and projectors, in a rush that lasts", lasting, alone[-len(lasting) :]),
        Figure("read models level again after the rush", tuple(behind), "s"),
        *(
            Figure(f"{part}, processor time of a sign-up in a rush that lasts", tuple(used), "µs")
            for part, used in processor.items()
        ),
    ]


def _sign_up(plant: Plant, seconds: float) -> float:
    target = plant.target
    done = uvloop.run(drive(target.host, target.port, lambda _: target.creation(), lanes=LANES, seconds=seconds))
    if done.failed or not done.succeeded:
        raise RuntimeError(f"{done.failed} of {done.failed + done.succeeded} requests failed")
    return done.per_second


def _rest(plant: Plant) -> None:
    """Wait until the read models are level, and for a moment more: servers tidy up after a rush."""
    uvloop.run(plant.until_level())
    time.sleep(REST_S)


def _until_they_follow(plant: Plant) -> None:
    """Go on until patience is over, and what was put off is done."""
    _sign_up(plant, limits.rush_patience_s)
    deadline = time.monotonic() + CATCH_UP_S
    while uvloop.run(plant.behind()) > LEVEL:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the read models do not catch up within {CATCH_UP_S:.0f} s of a rush that lasts")
        _sign_up(plant, 1)


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
