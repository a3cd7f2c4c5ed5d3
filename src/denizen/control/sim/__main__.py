"""`python -m denizen.control.sim --seeds 500`: play seeds 0 to 499. `--seeds 17-17 --trace` shows all of one."""

import argparse
import os
import sys

from denizen.control.sim.bugs import BUGS
from denizen.control.sim.runner import play_all, replay
from denizen.control.sim.simulation import PROFILES
from denizen.control.state import Stage
from denizen.raft.sim.__main__ import seeds_of

LINES_SHOWN = 60


def main(arguments: list[str] | None = None) -> int:
    """Play; returns 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m denizen.control.sim",
        description="Play seeded simulations of moves: control plane, executors, databases, writers, operators.",
        epilog="examples: --seeds 500; --seeds 17-17 --trace; --seeds 200 --bug attempts-not-compared",
    )
    parser.add_argument("--seeds", type=seeds_of, default="500", metavar="N|A-B", help="which seeds (default: 500)")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="the kind of runs (default: drawn, or the bug's)")
    parser.add_argument("--bug", choices=sorted(BUGS), help="put a known bug back first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    parser.add_argument("--trace", action="store_true", help="print every event of each seed")
    given = parser.parse_args(arguments)
    profile = given.profile or (BUGS[given.bug].profile if given.bug else "drawn")
    if given.trace:
        for seed in given.seeds:
            replay(seed, given.bug, profile, 0)
        return 0
    totals = play_all(given.seeds, given.bug, profile, max(1, given.jobs))
    for number, (seed, what) in enumerate(totals.failures.items()):
        if number == 0:
            replay(seed, given.bug, profile, LINES_SHOWN)
        bug = f" --bug {given.bug}" if given.bug else ""
        bug += f" --profile {profile}" if profile != "drawn" else ""
        print(f"FAILED seed {seed}: {what}\n  replay: python -m denizen.control.sim --seeds {seed}-{seed}{bug} --trace")
    print(
        f"{totals.runs} runs, {len(totals.failures)} failed, in {totals.seconds:.1f} s: {totals.plans} plans, "
        f"{totals.takeovers} takeovers, {totals.committed} moves committed, {totals.undone} undone, "
        f"{totals.held} fences given up, {totals.writes} writes acknowledged"
    )
    stages = ", ".join(f"{stage} {totals.taken_over[stage]}" for stage in Stage if stage in totals.taken_over)
    print(f"moves taken up by another executor: {stages or 'none'}")
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
