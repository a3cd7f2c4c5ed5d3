"""Elections: votes, terms, time-outs, and the quorum a leader needs to go on."""

from random import Random

from core_lab import ELECTION_MS, Lab

from denizen.raft.core import Core
from denizen.raft.messages import Append, PreVote, Vote, VoteReply
from denizen.raft.types import Repair, Restored, Role


def granted(lab):
    return [message for message in lab.wire if isinstance(message, VoteReply) and message.granted]


def stand_without_pre_vote(lab, node):
    """A candidate's votes are on the wire and nothing else."""
    lab.campaign(node)
    return [message for message in lab.wire if isinstance(message, Vote) and message.sender == node]


def test_a_node_that_voted_crashed_and_restarted_votes_for_no_second_candidate_of_the_term():
    lab = Lab(pre_vote=False)
    stand_without_pre_vote(lab, 1)
    lab.deliver(lambda m: isinstance(m, Vote) and m.to == 3)
    assert len(granted(lab)) == 1
    lab.drop()
    lab.restart(3)
    lab.campaign(2)
    assert (lab[1].term, lab[2].term, lab[3].term) == (1, 1, 1)
    lab.deliver(lambda m: m.to == 3)
    assert not granted(lab)
    assert lab[2].role is Role.CANDIDATE


def test_a_vote_does_not_leave_before_it_is_durable():
    lab = Lab(pre_vote=False)
    lab.nodes[3].holds_disk = True
    stand_without_pre_vote(lab, 1)
    lab.deliver(lambda m: m.to == 3)
    assert not granted(lab)
    lab.sync(3)
    assert len(granted(lab)) == 1


def test_a_candidate_does_not_ask_before_its_term_is_durable():
    lab = Lab(pre_vote=False)
    lab.nodes[1].holds_disk = True
    lab.campaign(1)
    assert lab.wire == []
    lab.sync(1)
    assert {m.to for m in lab.wire} == {2, 3}


def test_a_single_voter_leads_only_once_its_own_vote_is_durable():
    lab = Lab(voters=(1,))
    lab.nodes[1].holds_disk = True
    lab.campaign(1)
    assert lab[1].role is Role.CANDIDATE
    lab.sync(1)
    assert lab[1].role is Role.LEADER
    assert lab[1].commit == 0
    lab.sync(1)
    assert lab[1].commit == 1


def test_all_restart_together_and_committed_entries_stay():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a", b"b")
    lab.beat(1)
    lab.restart(1, 2, 3)
    assert [node.core.commit for node in lab.nodes.values()] == [0, 0, 0]
    lab.elect(2)
    lab.beat(2)
    assert [node.applied for node in lab.nodes.values()] == [[b"a", b"b"]] * 3


def test_stepping_down_inside_a_term_keeps_the_vote():
    lab = Lab()
    lab.elect(1)
    lab.drop()
    lab.tick(1, ms=3 * ELECTION_MS)
    assert (lab[1].role, lab[1].term) == (Role.FOLLOWER, 1)
    lab.step(1, Vote(1, 2, 1, 99, 1))
    assert not granted(lab)
    assert lab.nodes[1].disk.hard_state.vote == 1


def test_a_denied_vote_does_not_reset_the_timer_and_a_granted_one_does():
    lab = Lab(pre_vote=False, check_quorum=False)
    lab.elect(1)
    lab.write(1, b"a")
    lab.drop()
    heard_at = lab.now
    lab.now += 90
    lab.step(2, Vote(2, 3, 2, 0, 0))  # an empty log: denied
    assert not granted(lab)
    lab.tick(2, ms=2 * ELECTION_MS - 90)
    assert lab[2].role is Role.CANDIDATE, "it stood when its own time-out was over, as if nobody had asked"
    lab.now = heard_at + 3 * ELECTION_MS
    lab.step(3, Vote(3, 2, 9, 99, 9))
    assert len(granted(lab)) == 1
    lab.tick(3, ms=ELECTION_MS - 1)
    assert lab[3].role is Role.FOLLOWER


def test_a_log_that_is_behind_gets_no_vote():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a", among=(1, 2))
    lab.campaign(3)
    lab.settle()
    assert lab[3].role is not Role.LEADER
    lab.elect(2, 2, 3)


def test_a_node_cut_off_for_a_thousand_time_outs_rejoins_without_raising_the_term():
    lab = Lab()
    lab.elect(1)
    for _ in range(1_000):
        lab.nodes[3].ahead += 2 * ELECTION_MS
        lab.tick(3)
        lab.beat(1, 1, 2)
    assert lab[3].term == 1
    lab.beat(1)
    assert (lab[1].role, lab[1].term, lab[3].leader) == (Role.LEADER, 1, 1)


def test_a_pre_vote_is_denied_while_the_leader_lives():
    lab = Lab()
    lab.elect(1)
    lab.beat(1)
    lab.step(2, PreVote(2, 3, 2, 99, 9))
    assert not lab.wire[-1].granted
    lab.now += ELECTION_MS
    lab.step(2, PreVote(2, 3, 2, 99, 9))
    assert lab.wire[-1].granted


def test_a_vote_of_a_newer_term_does_not_depose_a_leader_that_is_heard():
    lab = Lab()
    lab.elect(1)
    lab.beat(1)
    for node in (1, 2):
        lab.step(node, Vote(node, 3, 7, 99, 9))
    assert (lab[1].role, lab[1].term, lab[2].term) == (Role.LEADER, 1, 1)


def test_a_restarted_node_helps_no_candidate_for_one_time_out():
    lab = Lab()
    lab.elect(1)
    lab.restart(2)
    lab.step(2, Vote(2, 3, 7, 99, 9))
    assert lab[2].term == 1
    lab.now += ELECTION_MS
    lab.step(2, Vote(2, 3, 7, 99, 9))
    assert lab[2].term == 7


def test_a_leader_that_can_send_but_not_receive_steps_down():
    lab = Lab()
    lab.elect(1)
    for _ in range(10):
        lab.now += 30
        lab.step(1)
        lab.deliver(lambda m: m.sender == 1)
        lab.drop(lambda m: m.to == 1)
    assert lab[1].role is Role.FOLLOWER
    assert lab[2].leader == 1, "its followers heard it to the end"
    lab.drop()
    lab.elect(2, 2, 3)


def test_a_leader_of_an_older_term_learns_of_the_newer_one():
    lab = Lab()
    lab.elect(1)
    lab.elect(2, 2, 3)
    assert lab[1].role is Role.LEADER
    lab.step(1)
    lab.settle()
    assert lab[1].role is Role.FOLLOWER
    lab.beat(2)
    assert (lab[1].leader, lab[1].term) == (2, 2)


def test_a_node_that_is_ahead_in_term_brings_the_leader_to_its_term():
    lab = Lab()
    lab.elect(1)
    lab.nodes[3].disk.hard_state = type(lab.nodes[3].disk.hard_state)(5, 3)
    lab.restart(3)
    lab.beat(1)
    assert lab[1].role is Role.FOLLOWER
    assert lab[1].term == 5
    lab.campaign(2)
    lab.settle()
    lab.elect(2)
    assert lab[2].term == 6


def test_a_damaged_node_neither_stands_nor_votes_until_it_has_everything_again():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a", b"b", b"c")
    lab.beat(1)
    assert lab.nodes[3].disk.rot()
    lab.restart(3)
    assert lab[3].damaged
    lab.crash(1)
    lab.campaign(3)
    assert lab.wire == []
    lab.campaign(2)
    lab.settle()
    assert lab[2].role is not Role.LEADER, "the damaged node may have acknowledged what it lost"
    lab.nodes[1].start()
    lab.elect(1)
    lab.beat(1)
    assert not lab[3].damaged
    assert lab.nodes[3].disk.repair_until is None
    lab.crash(1)
    lab.elect(2)


def test_a_node_whose_vote_may_be_wrong_never_votes_again():
    lab = Lab()
    lab.elect(1)
    lab.beat(1)
    lab.crash(3)
    restored = lab.nodes[3].disk.restored()
    damaged = Restored(entries=restored.entries, configuration=restored.configuration, repair=Repair(None))
    lab.nodes[3].start()
    lab.nodes[3].core = Core(lab.settings(3), damaged, Random(3), lab.now)
    lab.beat(1, times=5)
    assert lab[3].damaged
    assert lab[3].commit == lab[1].commit, "it follows"


def test_two_candidates_share_the_votes_and_a_later_election_decides():
    lab = Lab(pre_vote=False)
    lab.campaign(1)
    lab.campaign(2)
    lab.deliver(lambda m: (m.sender, m.to) in {(1, 3), (2, 1), (1, 2)})
    lab.settle()
    assert [lab[node].role for node in (1, 2)] == [Role.LEADER, Role.FOLLOWER]
    assert not any(isinstance(message, Append) for message in lab.wire)
