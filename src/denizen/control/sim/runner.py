"""Playing many seeds, on one or several processors."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import structlog

from denizen.control import carrying, executor
from denizen.control.sim.bugs import BUGS
from denizen.control.sim.simulation import MovesReport, MovesSimulation
from denizen.raft.sim.trace import tail

CHUNK_SEEDS = 10


@dataclass
class Totals:
    """What many runs amounted to."""

    runs: int = 0
    plans: int = 0
    takeovers: int = 0
    committed: int = 0
    undone: int = 0
    held: int = 0
    writes: int = 0
    seconds: float = 0.0
    taken_over: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, outcome: MovesReport | tuple[int, str]) -> None:
        """Count one run, or remember how it failed."""
        self.runs += 1
        if isinstance(outcome, tuple):
            self.failures[outcome[0]] = outcome[1]
            return
        for name in ("plans", "takeovers", "committed", "undone", "held", "writes"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.taken_over.update(outcome.taken_over)


@contextmanager
def quiet() -> Iterator[None]:
    """What executors log in a run is in its record already."""
    silent = structlog.wrap_logger(None, processors=[_drop])
    with patch.object(carrying, "_log", silent), patch.object(executor, "_log", silent):
        yield


def _drop(*_: Any) -> Mapping[str, Any]:
    raise structlog.DropEvent


def play(seed: int, bug: str | None = None, profile: str = "drawn") -> MovesReport | tuple[int, str]:
    """Play one seed; a broken rule, or any other error, comes back as a sentence."""
    with quiet(), BUGS[bug].put_back() if bug else nullcontext():
        try:
            return MovesSimulation(seed, profile).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a run is what is looked for
            return seed, f"{type(error).__name__}: {error}"


def play_chunk(seeds: range, bug: str | None, profile: str) -> list[MovesReport | tuple[int, str]]:
    """Play some seeds, in one process."""
    return [play(seed, bug, profile) for seed in seeds]


def play_all(seeds: range, bug: str | None, profile: str, jobs: int) -> Totals:
    """Play all seeds on `jobs` processors."""
    totals, begun = Totals(), time.monotonic()
    chunks = [seeds[at : at + CHUNK_SEEDS] for at in range(0, len(seeds), CHUNK_SEEDS)]
    if jobs == 1:
        outcomes = [outcome for chunk in chunks for outcome in play_chunk(chunk, bug, profile)]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            played = pool.map(play_chunk, chunks, [bug] * len(chunks), [profile] * len(chunks))
            outcomes = [outcome for chunk in played for outcome in chunk]
    for outcome in outcomes:
        totals.add(outcome)
    totals.seconds = time.monotonic() - begun
    return totals


def replay(seed: int, bug: str | None, profile: str, lines: int) -> None:
    """Play one seed again and print its last lines (0: all of them)."""
    with quiet(), BUGS[bug].put_back() if bug else nullcontext():
        run = MovesSimulation(seed, profile, keep_lines=True)
        try:
            ending = str(run.run())
        except Exception as error:  # noqa: BLE001 - as above
            ending = f"{type(error).__name__}: {error}"
    for line in tail(run.trace.lines, lines) if lines else run.trace.lines:
        print(line)
    print(f"seed {seed}: {ending}; checksum {run.trace.checksum:08x}")
