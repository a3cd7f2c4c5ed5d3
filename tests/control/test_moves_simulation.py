"""Moves under simulation hold every rule, and the checkers find known bugs."""

import pytest

from denizen.control.sim import MovesReport, MovesSimulation
from denizen.control.sim.bugs import BUGS
from denizen.control.sim.runner import Totals, play, quiet
from denizen.raft.sim.violation import Violation

EXPECTED = {
    "open-before-fence": {"at most one server is open", "acknowledged writes are with the owner"},
    "commit-without-verify": {"acknowledged writes are with the owner"},
    "unequal-taken-for-equal": {"acknowledged writes are with the owner"},
    "attempts-not-compared": {"at most one server is open", "epochs rise", "acknowledged writes are with the owner"},
    "attempt-kept": {"at most one server is open", "epochs rise", "acknowledged writes are with the owner"},
    "reopened-without-bar": {"at most one server is open", "epochs rise", "acknowledged writes are with the owner"},
    "cancel-forgets-the-fence": {"progress", "map and databases agree"},
    "epoch-kept": {"epochs rise"},
    "committed-without-close": {"readers see what was acknowledged"},
    "rolled-forward-without-close": {"readers see what was acknowledged"},
    "cancelled-without-abort": {"nothing is left over", "a cancel leaves nothing"},
}
"""By which broken rule each bug has to be found."""


def first_violation(bug):
    """The first seed, within the bound, that breaks one of the expected rules."""
    with quiet(), bug.put_back():
        for seed in range(bug.seeds_max):
            try:
                MovesSimulation(seed, bug.profile).run()
            except Violation as violation:
                if violation.rule in EXPECTED[bug.name]:
                    return seed
    return None


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_known_bug_is_found_within_its_bound(name):
    bug = BUGS[name]
    seed = first_violation(bug)
    assert seed is not None, f"{bug.what}: not found in {bug.seeds_max} runs"
    assert isinstance(play(seed, None, bug.profile), MovesReport), "without the bug the same seed holds every rule"


@pytest.mark.parametrize("profile", ["drawn", "belated"])
def test_moves_hold_every_rule_whatever_goes_wrong(profile):
    totals = Totals()
    for seed in range(20):
        totals.add(play(seed, None, profile))
    assert totals.failures == {}
    assert totals.committed > 10, "moves were carried out"
    assert totals.undone > 5, "and undone"
    assert totals.held > 2, "and fences given up"
    assert totals.takeovers > 30, "by executors that come and go"
    assert len(totals.taken_over) >= 6, "in the middle of most stages"


def test_a_seed_replays_bit_for_bit():
    with quiet():
        one, other = (MovesSimulation(3).run() for _ in range(2))
    assert one == other
