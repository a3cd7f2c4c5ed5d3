"""What the event plane takes from appends: sign-ups over HTTP, as fast as they go, with and without it.

Without means that relay and projector are stopped (SIGSTOP) in the midst of the same deployment; with, that they run,
and have caught up. The two are measured in turns, and which comes first alternates, for the machine's speed drifts.
Load, gateway, servers, relay and projectors share the cores, and the load leaves little of them idle, so whatever relay
and projectors use is taken from the appends. In a rush they give way (see `bus.rush`): for some seconds they put off
what they can (`bus.give_way_s`), then they work seldom, for less. So it is measured twice: at the beginning of a rush,
and as it is later, when patience is over and they have caught up. That is reached sooner where they have none.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Generic, TypeVar

import uvloop
from msgspec import Struct

from denizen import limits
from denizen.bench.cqrs.plant import Plant, Used
from denizen.bench.http_load import LoadResult, drive
from denizen.bench.report import Figure, ratio

LANES = 64
BAR = 0.9
IMPATIENT = "\n[bus]\ngive_way_s = 0.1\n"
LEAD_S = 2.0  # until it is a rush, and patience is over
REST_S = 3.0  # before each measurement

Result = TypeVar("Result")


def measure_beginning(plant: Plant, seconds: float, rounds: int) -> list[Figure]:
    """Compare the first seconds of a rush, while relay and projectors have patience."""
    turns = _in_turns(plant, 2 * rounds, lambda: _sign_up(plant, min(seconds, limits.rush_patience_s)))
    return [
        Figure("sign-ups a second without relay and projectors", tuple(turns.without), "/s"),
        Figure("sign-ups a second with them, in a rush", tuple(turns.beside), "/s"),
        ratio("appends with relay and projectors, in a rush", turns.beside, turns.without, BAR),
    ]


def measure_lasting(plant: Plant, seconds: float, rounds: int) -> list[Figure]:
    """Compare any seconds of a rush that lasts, in a deployment that is `IMPATIENT`."""
    turns = _in_turns(plant, 2 * rounds, lambda: _sign_up_late(plant, LEAD_S, seconds))
    without, beside = ([late.per_second for late in each] for each in (turns.without, turns.beside))
    return [
        Figure("sign-ups a second without them, in a rush that lasts", tuple(without), "/s"),
        Figure("sign-ups a second with them, in a rush that lasts", tuple(beside), "/s"),
        ratio("appends with relay and projectors, in a rush that lasts", beside, without),
        Figure("read models level again after a rush that lasts", tuple(turns.level_s), "s"),
        *(
            Figure(
                f"{part}, processor time of a sign-up in a rush that lasts",
                tuple(late.used[part] * 1e6 for late in turns.beside),
                "µs",
            )
            for part in turns.beside[0].used
        ),
    ]


class Turns(Struct, Generic[Result]):
    """What was measured with relay and projectors stopped, and beside them; then, how soon read models were level."""

    without: list[Result]
    beside: list[Result]
    level_s: list[float]


def _in_turns(plant: Plant, pairs: int, load: Callable[[], Result]) -> Turns[Result]:
    """Measure pairs of the two; which comes first alternates."""
    turns = Turns[Result]([], [], [])

    def without() -> None:
        with _stopped(plant):
            turns.without.append(load())

    def beside() -> None:
        turns.beside.append(load())
        turns.level_s.append(uvloop.run(plant.until_level()))

    for number in range(pairs):
        for turn in (without, beside) if number % 2 == 0 else (beside, without):
            _rest(plant)
            turn()
    return turns


class Late(Struct, frozen=True):
    """Sign-ups a second at the end of a rush, and the processor time of one: seconds of each part."""

    per_second: float
    used: dict[str, float]


def _sign_up(plant: Plant, seconds: float) -> float:
    """Sign-ups a second, from the first moment on."""
    return _drive(plant, seconds, plant.target.creation).per_second


def _sign_up_late(plant: Plant, lead_s: float, seconds: float) -> Late:
    """Sign up for `lead_s` and `seconds`, without a pause between them, and measure the latter."""
    count, began, before = 0, inf, Used({})
    due = time.monotonic() + lead_s

    def creation() -> bytes:
        nonlocal count, began, before
        if began == inf and time.monotonic() >= due:
            count, began, before = 0, time.monotonic(), plant.used()
        count += 1
        return plant.target.creation()

    _drive(plant, lead_s + seconds, creation)
    took, used = time.monotonic() - began, plant.used().since(before)
    return Late(count / took, {part: each / count for part, each in used.items()})


def _drive(plant: Plant, seconds: float, creation: Callable[[], bytes]) -> LoadResult:
    target = plant.target
    done = uvloop.run(drive(target.host, target.port, lambda _: creation(), lanes=LANES, seconds=seconds))
    if done.failed or not done.succeeded:
        raise RuntimeError(f"{done.failed} of {done.failed + done.succeeded} requests failed")
    return done


def _rest(plant: Plant) -> None:
    """Wait until the read models are level, and for a moment more: servers tidy up after a rush."""
    uvloop.run(plant.until_level())
    time.sleep(REST_S)


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
