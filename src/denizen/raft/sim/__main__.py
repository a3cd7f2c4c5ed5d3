"""`python -m denizen.raft.sim --seeds 2000`: play seeds 0 to 1999. `--seeds 17-17 --trace` shows every event of one."""

import argparse
import os
import sys

from denizen.raft.sim.bugs import BUGS
from denizen.raft.sim.options import PROFILES
from denizen.raft.sim.runner import play_all, replay, replay_command

LINES_SHOWN = 40


def seeds_of(text: str) -> range:
    """`N` for the first N seeds, `A-B` for those from A to B, both included."""
    first, dash, last = text.partition("-")
    seeds = range(int(first), int(last) + 1) if dash else range(int(first))
    if not seeds:
        raise argparse.ArgumentTypeError(f"no seeds in {text!r}; give a count, or A-B with A <= B")
    return seeds


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m denizen.raft.sim",
        description="Play seeded simulations of the Raft core and check every step.",
        epilog="examples: --seeds 2000; --seeds 17-17 --trace; --seeds 300 --profile stormy --bug vote-not-persisted",
    )
    made.add_argument("--seeds", type=seeds_of, default="2000", metavar="N|A-B", help="which seeds (default: 2000)")
    made.add_argument("--profile", choices=sorted(PROFILES), default="drawn", help="the kind of runs")
    made.add_argument("--bug", choices=sorted(BUGS), help="put a known bug back into the core first")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    made.add_argument("--trace", action="store_true", help="print every event of each seed")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Play; returns 1 if a run failed."""
    given = parser().parse_args(arguments)
    if given.trace:
        for seed in given.seeds:
            replay(seed, given.profile, given.bug, 0)
        return 0
    totals = play_all(given.seeds, given.profile, given.bug, max(1, given.jobs))
    for number, (seed, what) in enumerate(totals.failures.items()):
        if number == 0:
            replay(seed, given.profile, given.bug, LINES_SHOWN)
        print(f"FAILED seed {seed}: {what}\n  replay: {replay_command(seed, given.profile, given.bug)}")
    print(
        f"{totals.runs} runs, {len(totals.failures)} failed, in {totals.seconds:.1f} s: {totals.events} events, "
        f"{totals.elections} elections, {totals.committed} entries committed, {totals.acknowledged} commands "
        f"acknowledged, {totals.reads} reads"
    )
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
