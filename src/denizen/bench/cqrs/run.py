"""`denizen bench cqrs`: the bars of the read side, in about eleven minutes.

    replay     the directory end to end, and the `eventsourcing` library's replay of the same events
    search     the directory with a million users
    lag        from acknowledgement to visible, at 2,000 changes a second
    burden     appends with relay and projectors, and without
    wiped      NATS killed and wiped under load

Everything goes through real servers and processes. Each part can be run alone, and writes its own figures.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from msgspec import Struct
from rich.console import Console

from denizen.bench.cqrs import burden, lag, replaying, searching, wiping
from denizen.bench.cqrs.plant import plant
from denizen.bench.quiet import wait_until_quiet
from denizen.bench.report import Figure, Report, publish

PARTS = ("replay", "search", "lag", "burden", "wiped")


class Plan(Struct, frozen=True):
    """How much of each."""

    events: int = 1_500_000
    users: int = 1_000_000
    seconds: float = 10.0
    rounds: int = 4


def run(parts: Sequence[str] = PARTS, plan: Plan | None = None) -> Report:
    """Measure these parts, print and write everything; the path of the figures."""
    console = Console(stderr=True)
    chosen = plan or Plan()
    figures: list[Figure] = []
    facts: dict[str, Any] = {"parts": list(parts), "events": chosen.events, "users": chosen.users}
    for part in parts:
        wait_until_quiet()
        began = time.monotonic()
        figures += _MEASURES[part](chosen, console, facts)
        console.print(f"{part}: {time.monotonic() - began:.0f} s")
    return publish("cqrs", figures, facts)


def _replay(plan: Plan, console: Console, _: dict[str, Any]) -> list[Figure]:
    with plant() as made:
        return replaying.measure(made, plan.events, console)


def _search(plan: Plan, console: Console, _: dict[str, Any]) -> list[Figure]:
    return searching.measure(plan.users, console)


def _lag(plan: Plan, console: Console, facts: dict[str, Any]) -> list[Figure]:
    with plant() as made:
        figures, facts["lag histogram"] = uvloop.run(lag.measure(made, plan.seconds))
    console.print("lag, share of the changes: " + ", ".join(f"{k} {v:.1%}" for k, v in facts["lag histogram"].items()))
    return figures


def _burden(plan: Plan, _: Console, __: dict[str, Any]) -> list[Figure]:
    with plant() as made:
        figures = burden.measure_beginning(made, plan.seconds / 2, plan.rounds)
    with plant(configuration=burden.IMPATIENT) as made:
        return figures + burden.measure_lasting(made, plan.seconds / 2, plan.rounds)


def _wiped(plan: Plan, _: Console, __: dict[str, Any]) -> list[Figure]:
    with plant() as made:
        return uvloop.run(wiping.measure(made, plan.seconds))


_MEASURES: dict[str, Callable[[Plan, Console, dict[str, Any]], list[Figure]]] = {
    "replay": _replay,
    "search": _search,
    "lag": _lag,
    "burden": _burden,
    "wiped": _wiped,
}
