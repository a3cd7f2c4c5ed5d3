"""Check the checkers: each known bug that is put back is found, and so are state machines that are wrong."""

import itertools

import pytest

from denizen.raft.sim import Options, Simulation, Violation
from denizen.raft.sim.__main__ import main, seeds_of
from denizen.raft.sim.bugs import BUGS
from denizen.raft.sim.machines import Counters
from denizen.raft.sim.runner import play, simulation
from denizen.raft.sim.simulation import Report

EXPECTED = {
    "vote-not-persisted": {"one leader a term", "log matching", "leader completeness", "state machine safety"},
    "old-term-by-counting": {"leader completeness", "state machine safety"},
    "matching-suffix-truncated": {"leader completeness", "state machine safety"},
    "read-by-old-heartbeat": {"reads are not stale"},
    "configuration-too-late": {"one leader a term", "leader completeness", "state machine safety"},
}
"""By which broken rule each bug has to be found: not only by a cluster that stands still."""


def first_violation(bug):
    """The first seed, within the bound, that breaks one of the expected rules."""
    with bug.put_back():
        for seed in range(bug.seeds_max):
            try:
                simulation(seed, bug.profile).run()
            except Violation as violation:
                if violation.rule in EXPECTED[bug.name]:
                    return seed
    return None


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_known_bug_is_found_within_its_bound(name):
    bug = BUGS[name]
    seed = first_violation(bug)
    assert seed is not None, f"{bug.what}: not found in {bug.seeds_max} runs"
    assert isinstance(play(seed, bug.profile, None), Report), "without the bug the same seed holds every rule"


def test_a_machine_without_sessions_is_found_to_apply_twice():
    class Forgetful(Counters):
        def apply(self, index, command):
            self._sessions.clear()
            return super().apply(index, command)

    def play_some():
        for seed in range(50):
            Simulation(seed, machine=Forgetful).run()

    with pytest.raises(Violation, match="exactly once"):
        play_some()


def test_a_machine_that_differs_from_node_to_node_is_found():
    lives = itertools.count()

    class Random(Counters):
        def __init__(self):
            super().__init__()
            self._life = next(lives)

        def snapshot(self):
            return super().snapshot() + bytes([self._life % 256])

        def restore(self, snapshot):
            super().restore(snapshot[:-1])

    with pytest.raises(Violation, match="same state everywhere"):
        Simulation(0, Options(), machine=Random).run()


def test_a_cluster_that_cannot_recover_is_found():
    run = Simulation(1, Options(founders=3, spares=0, chaos_us=100_000, settle_us=500_000))
    run._stop_faults = lambda: run.network.partition([1], [2, 3]) or run.network.partition([2], [3])
    with pytest.raises(Violation, match="progress"):
        run.run()


def test_a_failing_seed_prints_how_to_replay_it_and_what_happened(capsys):
    bug = BUGS["matching-suffix-truncated"]
    seed = first_violation(bug)
    arguments = ["--seeds", f"{seed}-{seed}", "--bug", bug.name, "--jobs", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert f"replay: python -m denizen.raft.sim --seeds {seed}-{seed} --bug {bug.name} --trace" in printed
    assert "Append from n" in printed
    assert "1 runs, 1 failed" in printed


def test_the_command_plays_seeds_and_shows_one(capsys):
    assert main(["--seeds", "3", "--jobs", "1"]) == 0
    assert "3 runs, 0 failed" in capsys.readouterr().out
    assert main(["--seeds", "2-2", "--trace"]) == 0
    assert "seed 2: Report(seed=2" in capsys.readouterr().out
    assert (seeds_of("5"), seeds_of("5-7")) == (range(5), range(5, 8))
