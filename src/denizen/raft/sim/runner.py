"""Playing many seeds, on one or several processors, and telling how to play a failing one again."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

from denizen.raft.sim.bugs import BUGS
from denizen.raft.sim.options import PROFILES
from denizen.raft.sim.randomness import stream
from denizen.raft.sim.simulation import Report, Simulation
from denizen.raft.sim.trace import tail

CHUNK_SEEDS = 25


def simulation(seed: int, profile: str = "drawn", *, keep_lines: bool = False) -> Simulation:
    """The run of a seed, of the kind that the profile names."""
    return Simulation(seed, PROFILES[profile](stream(seed, "options")), keep_lines=keep_lines)


@dataclass
class Totals:
    """What many runs amounted to."""

    runs: int = 0
    events: int = 0
    elections: int = 0
    committed: int = 0
    acknowledged: int = 0
    reads: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, outcome: Report | tuple[int, str]) -> None:
        """Count one run, or remember how it failed."""
        self.runs += 1
        if isinstance(outcome, Report):
            self.events += outcome.events
            self.elections += outcome.elections
            self.committed += outcome.committed
            self.acknowledged += outcome.acknowledged
            self.reads += outcome.reads
        else:
            self.failures[outcome[0]] = outcome[1]


def play(seed: int, profile: str, bug: str | None) -> Report | tuple[int, str]:
    """Play one seed; a broken rule, or any other error in the core, comes back as a sentence."""
    with BUGS[bug].put_back() if bug else nullcontext():
        try:
            return simulation(seed, profile).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a run is what is looked for
            return seed, f"{type(error).__name__}: {error}"


def play_chunk(seeds: range, profile: str, bug: str | None) -> list[Report | tuple[int, str]]:
    """Play some seeds, in one process."""
    return [play(seed, profile, bug) for seed in seeds]


def play_all(seeds: range, profile: str, bug: str | None, jobs: int) -> Totals:
    """Play all seeds on `jobs` processors."""
    totals, begun = Totals(), time.monotonic()
    for outcome in _outcomes(seeds, profile, bug, jobs):
        totals.add(outcome)
    totals.seconds = time.monotonic() - begun
    return totals


def _outcomes(seeds: range, profile: str, bug: str | None, jobs: int) -> Iterator[Report | tuple[int, str]]:
    chunks = [seeds[at : at + CHUNK_SEEDS] for at in range(0, len(seeds), CHUNK_SEEDS)]
    if jobs == 1:
        for chunk in chunks:
            yield from play_chunk(chunk, profile, bug)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for played in pool.map(play_chunk, chunks, [profile] * len(chunks), [bug] * len(chunks)):
            yield from played


def replay(seed: int, profile: str, bug: str | None, lines: int) -> None:
    """Play one seed again and print its last lines (0: all of them)."""
    with BUGS[bug].put_back() if bug else nullcontext():
        run = simulation(seed, profile, keep_lines=True)
        try:
            ending = str(run.run())
        except Exception as error:  # noqa: BLE001 - as above
            ending = f"{type(error).__name__}: {error}"
    for line in tail(run.trace.lines, lines) if lines else run.trace.lines:
        print(line)
    print(f"seed {seed}: {ending}; checksum {run.trace.checksum:08x}")
    sys.stdout.flush()


def replay_command(seed: int, profile: str, bug: str | None) -> str:
    """What to type to see a seed again."""
    more = ("" if profile == "drawn" else f" --profile {profile}") + (f" --bug {bug}" if bug else "")
    return f"python -m denizen.raft.sim --seeds {seed}-{seed}{more} --trace"
