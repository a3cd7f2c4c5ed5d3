"""Membership, transfer of leadership, and what must not happen while members change."""

from core_lab import ELECTION_MS, Lab

from denizen.raft.effects import Refusal
from denizen.raft.messages import Append, AppendReply, TimeoutNow, Vote
from denizen.raft.types import Configuration, Role


def test_an_empty_voter_joins_as_a_learner_first_and_is_promoted_when_it_caught_up():
    lab = Lab(others=(4,), promotion_lag_entries=0)
    lab.elect(1)
    lab.write(1, *(b"%d" % number for number in range(50)))
    key = lab.change(1, add_voters=(4,))
    assert lab[1].configuration == Configuration(voters=(1, 2, 3), learners=(4,), joining=(4,))
    lab.settle(1, 2, 3)
    assert key in lab.completed, "the first step is done without the new node"
    for _ in range(3):
        lab.beat(1, 1, 2, 3)
    assert lab[1].configuration.learners == (4,), "as long as it is not heard it does not vote"
    lab.beat(1, times=4)
    assert all(lab[node].configuration == Configuration(voters=(1, 2, 3, 4)) for node in (1, 2, 3, 4))
    assert lab.nodes[4].applied == lab.nodes[1].applied


def test_a_learner_does_not_count_for_commits():
    lab = Lab(voters=(1, 2), others=(3, 4))
    lab.elect(1)
    lab.change(1, add_learners=(3, 4))
    lab.settle()
    lab.beat(1)
    commit = lab[1].commit
    lab.write(1, b"a", among=(1, 3, 4))
    assert lab[1].commit == commit
    lab.beat(1)
    assert lab[1].commit == commit + 1


def test_a_configuration_is_in_effect_when_it_is_appended():
    lab = Lab(others=(4,), promotion_lag_entries=10)
    lab.elect(1)
    lab.change(1, add_learners=(4,))
    lab.settle()
    lab.beat(1)
    lab.change(1, add_voters=(4,))
    assert lab[1].configuration == Configuration(voters=(1, 2, 3, 4), outgoing=(1, 2, 3))
    assert lab[1].commit < lab[1].last_index
    lab.deliver(lambda m: m.to == 2 and isinstance(m, Append))
    assert lab[2].configuration.joint
    assert lab[2].commit < lab[2].last_index


def test_a_configuration_that_is_truncated_is_no_longer_in_effect():
    lab = Lab(others=(4,))
    lab.elect(1)
    before = lab[3].configuration
    lab.change(1, add_learners=(4,))
    lab.settle(1)
    assert lab[1].configuration.learners == (4,)
    lab.elect(2, 2, 3)
    lab.beat(2, times=2)
    assert lab[1].configuration == before


def test_one_change_at_a_time_and_none_before_an_entry_of_the_term_is_committed():
    lab = Lab(others=(4, 5))
    lab.elect(1)
    first = lab.change(1, add_learners=(4,))
    second = lab.change(1, add_learners=(5,))
    assert lab.refused[second].reason is Refusal.CHANGE_PENDING
    lab.settle()
    assert first in lab.completed
    lab.campaign(2)
    while lab[2].role is not Role.LEADER:
        lab.deliver(lambda m: 1 not in (m.to, m.sender))
    early = lab.change(2, add_learners=(5,))
    assert lab.refused[early].reason is Refusal.TERM_NOT_COMMITTED
    lab.settle()
    late = lab.change(2, add_learners=(5,))
    lab.settle()
    assert late in lab.completed


def test_one_add_and_one_remove_by_two_leaders_never_decide_apart():
    """The single-server bug: two configurations that differ by one node each from a third have no common majority."""
    lab = Lab(voters=(1, 2, 3, 4), others=(5,), promotion_lag_entries=100)
    lab.elect(1)
    lab.change(1, add_learners=(5,))
    lab.settle()
    lab.beat(1)
    lab.change(1, add_voters=(5,))
    lab.settle(1, 5)
    added_at = lab[1].last_index
    lab.elect(2, 2, 3, 4)
    removed = lab.change(2, remove=(1,))
    assert removed not in lab.refused
    removed_at = lab[2].last_index
    lab.settle(2, 3)
    lab.beat(1, 1, 5)
    assert lab[1].commit < added_at, "1 and 5 are a majority of neither the old nor the new members"
    assert lab[2].commit < removed_at, "2 and 3 are a majority of the new members, but not of the old ones"
    lab.settle()
    lab.beat(2, times=4)
    assert removed in lab.completed
    assert lab[2].configuration == Configuration(voters=(2, 3, 4), learners=(5,))
    assert lab[1].term_at(added_at) != 1, "what the first leader appended is gone"


def test_a_removed_leader_hands_over_and_steps_down():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    key = lab.change(1, remove=(1,))
    lab.settle()
    assert key in lab.completed
    assert lab[1].role is Role.FOLLOWER
    leaders = [node for node in (2, 3) if lab[node].role is Role.LEADER]
    assert len(leaders) == 1, "it did not take a time-out"
    assert lab[leaders[0]].configuration == Configuration(voters=(2, 3))
    lab.campaign(1)
    assert not [m for m in lab.wire if isinstance(m, Vote)]


def test_a_leader_that_is_leaving_does_not_count_itself():
    lab = Lab()
    lab.elect(1)
    lab.change(1, remove=(1,))
    lab.deliver(lambda m: isinstance(m, Append))
    lab.deliver(lambda m: isinstance(m, AppendReply))
    assert lab[1].configuration == Configuration(voters=(2, 3)), "the joint one is committed"
    last = lab[1].last_index
    lab.deliver(lambda m: m.to == 2)
    lab.deliver(lambda m: m.sender == 2)
    assert lab[1].commit < last, "one of two voters has it; the leader is none"
    lab.settle()
    assert lab[2].commit >= last


def test_a_voter_whose_removal_is_not_committed_still_stands():
    """It may be the only one with the entry that removes it; if it did not stand, nobody could win."""
    lab = Lab(voters=(1, 2))
    lab.elect(1)
    lab.change(1, remove=(1,))
    lab.deliver(lambda m: isinstance(m, Append))
    lab.deliver(lambda m: isinstance(m, AppendReply))
    assert lab[1].configuration == Configuration(voters=(2,))
    lab.drop()
    lab.restart(1, 2)
    lab.campaign(2)
    lab.settle()
    assert lab[2].role is not Role.LEADER, "node 1 has an entry more and denies its vote"
    lab.campaign(1)
    lab.settle()
    assert lab[2].role is Role.LEADER
    assert lab[2].configuration == Configuration(voters=(2,))


def test_wrong_changes_are_refused():
    lab = Lab(others=(4,))
    lab.elect(1)
    wrong = [
        {"add_voters": (1,)},
        {"add_learners": (2,)},
        {"demote": (4,)},
        {"remove": (9,)},
        {"remove": (1, 2, 3)},
        {"add_learners": (4,), "remove": (4,)},
        {"add_learners": (0,)},
        {},
    ]
    for change in wrong:
        assert lab.refused[lab.change(1, **change)].reason is Refusal.INVALID_CHANGE
    assert lab.refused[lab.change(2, add_learners=(4,))].reason is Refusal.NOT_LEADER


def test_a_demoted_voter_becomes_a_learner():
    lab = Lab()
    lab.elect(1)
    lab.change(1, demote=(3,))
    lab.settle()
    lab.beat(1)
    assert lab[1].configuration == Configuration(voters=(1, 2), learners=(3,))
    lab.write(1, b"a")
    lab.beat(1)
    assert lab.nodes[3].applied == [b"a"]
    lab.campaign(3)
    assert lab.wire == []


def test_a_transfer_takes_no_time_out():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a", among=(1, 3))
    key = lab.transfer(1, 2)
    refused = lab.propose(1, b"b")
    assert lab.refused[refused].reason is Refusal.TRANSFERRING
    assert not [m for m in lab.wire if isinstance(m, TimeoutNow)], "its log is not complete yet"
    lab.beat(1)
    assert lab[2].role is Role.LEADER
    assert key in lab.completed
    assert lab.nodes[2].applied == [b"a"]


def test_a_transfer_that_fails_leaves_the_leader_leading():
    lab = Lab()
    lab.elect(1)
    lab.crash(2)
    key = lab.transfer(1, 2)
    for _ in range(8):
        lab.beat(1)
    assert lab.refused[key].reason is Refusal.TIMED_OUT
    assert lab[1].role is Role.LEADER
    commit = lab[1].commit
    lab.write(1, b"a")
    assert lab[1].commit == commit + 1


def test_transfers_to_nobody_are_refused():
    lab = Lab(others=(4,))
    lab.elect(1)
    for target in (1, 4, 9):
        assert lab.refused[lab.transfer(1, target)].reason is Refusal.NOT_A_VOTER
    assert lab.refused[lab.transfer(2, 1)].reason is Refusal.NOT_LEADER


def test_a_removed_node_does_not_disturb_the_others():
    lab = Lab(pre_vote=False)
    lab.elect(1)
    lab.change(1, remove=(3,))
    lab.deliver(lambda m: m.to != 3)
    lab.settle(1, 2)
    term = lab[1].term
    for _ in range(20):
        lab.beat(1, 1, 2)
        lab.nodes[3].ahead += 2 * ELECTION_MS
        lab.tick(3)
        lab.settle()
    assert (lab[1].role, lab[1].term) == (Role.LEADER, term)
