"""The simulation of the real core: many runs hold every rule, and a seed replays bit for bit."""

import os
import subprocess
import sys

import pytest

from denizen.raft.sim.runner import play_chunk, simulation
from denizen.raft.sim.simulation import Report

CHUNKS = [
    *(("drawn", range(first, first + 100)) for first in range(0, 1_700, 100)),
    *(("stormy", range(first, first + 50)) for first in range(0, 150, 50)),
    *(("falling", range(first, first + 50)) for first in range(0, 50, 50)),
    *(("changing", range(first, first + 25)) for first in range(0, 100, 25)),
]


def test_ci_plays_at_least_two_thousand_runs():
    assert sum(len(seeds) for _, seeds in CHUNKS) >= 2_000


@pytest.mark.parametrize(("profile", "seeds"), CHUNKS, ids=lambda value: f"{value[0]}" if len(value) > 99 else None)
def test_every_rule_holds_and_the_cluster_recovers(profile, seeds):
    failed = [outcome for outcome in play_chunk(seeds, profile, None) if not isinstance(outcome, Report)]
    assert not failed, (
        f"see it with: python -m denizen.raft.sim --profile {profile} --seeds {failed[0][0]}-{failed[0][0]}"
    )


@pytest.mark.parametrize("profile", ["drawn", "stormy", "falling", "changing"])
def test_a_seed_replays_bit_for_bit(profile):
    for seed in range(5):
        assert simulation(seed, profile).run() == simulation(seed, profile).run()


def test_a_seed_replays_bit_for_bit_in_another_process_whatever_the_order_of_sets():
    def checksums(hash_seed):
        program = (
            "from denizen.raft.sim.runner import simulation\n"
            "print([(p, s, simulation(s, p).run().checksum) for p in ('drawn', 'changing') for s in range(6)])"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    assert checksums("1") == checksums("2")


def test_different_seeds_are_different_histories():
    assert len({simulation(seed).run().checksum for seed in range(10)}) == 10


def test_reading_a_run_does_not_change_it():
    quiet, loud = simulation(3), simulation(3, keep_lines=True)
    assert quiet.run() == loud.run()
    assert not quiet.trace.lines
    assert len(loud.trace.lines) > 100


def test_runs_are_rich():
    """Elections, snapshots, repairs, promotions and transfers really happen in them."""
    seen = set()
    for profile, seeds in (("drawn", range(60)), ("changing", range(4))):
        for seed in seeds:
            run = simulation(seed, profile, keep_lines=True)
            run.run()
            text = "\n".join(run.trace.lines)
            wanted = (
                "restored the snapshot",
                "TimeoutNow",
                "is damaged",
                "outgoing (1",
                "ChunkWritten",
                "ReadIndexReply",
            )
            seen |= {sign for sign in wanted if sign in text}
    assert len(seen) == 6, seen
