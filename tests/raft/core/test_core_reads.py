"""Reads: linearizable without writing, by a round or by a lease; never from a leader that may have been replaced."""

from core_lab import ELECTION_MS, Lab

from denizen.raft.effects import Refusal
from denizen.raft.messages import Append, AppendReply, ReadIndexReply
from denizen.raft.types import Role


def test_a_read_waits_for_answers_to_a_round_that_began_after_it():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    lab.tick(1, ms=30)
    lab.deliver(lambda m: m.to != 1)
    answers_to_older_rounds = lab.drop()
    key = lab.read(1)
    for answer in answers_to_older_rounds:
        lab.step(1, answer)
    assert key not in lab.reads, "they were given before the read arrived"
    lab.settle()
    assert lab.reads[key] == lab[1].commit


def test_an_old_leader_in_a_minority_fails_its_reads():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    lab.beat(1)
    key = lab.read(1)
    lab.drop()
    lab.elect(2, 2, 3)
    lab.write(2, b"b", among=(2, 3))
    lab.drop()
    for _ in range(8):
        lab.tick(1, ms=30)
        lab.drop()
    assert key not in lab.reads
    assert lab.refused[key].reason is Refusal.LEADERSHIP_LOST
    assert lab.refused[lab.read(1)].reason is Refusal.NOT_LEADER


def test_a_fresh_leader_waits_for_its_first_entry_before_it_reads():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    lab.campaign(2)
    while lab[2].role is not Role.LEADER:
        lab.deliver(lambda m: not isinstance(m, Append))
    key = lab.read(2)
    rounds = [m for m in lab.wire if isinstance(m, Append) and m.sender == 2]
    for message in rounds:
        lab.step(message.to, Append(message.to, 2, message.term, message.round, 0, 0, 0, []))
    lab.deliver(lambda m: isinstance(m, AppendReply) and m.to == 2)
    assert key not in lab.reads, "it leads for sure, but does not know what is committed"
    lab.settle()
    assert lab.reads[key] == 3


def test_reads_that_come_during_a_round_share_the_next_one():
    lab = Lab()
    lab.elect(1)
    first = lab.read(1)
    round_sent = lab[1]._state.leading.round
    later = [lab.read(1) for _ in range(50)]
    assert lab[1]._state.leading.round == round_sent
    lab.settle()
    assert {first, *later} <= set(lab.reads)
    assert lab[1]._state.leading.round == round_sent + 1


def test_a_follower_reads_what_the_leader_had_committed():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    key = lab.read(2)
    lab.settle()
    assert lab.reads[key] == lab[1].commit
    assert lab.nodes[2].applied == [b"a"]


def test_a_followers_read_that_the_leader_does_not_answer_ends():
    lab = Lab()
    lab.elect(1)
    key = lab.read(2)
    lab.drop()
    for _ in range(8):
        lab.beat(1)
    assert lab.refused[key].reason is Refusal.TIMED_OUT


def test_an_answer_to_a_read_of_an_earlier_life_confirms_nothing():
    lab = Lab()
    lab.elect(1)
    lab.write(1, b"a")
    lab.read(2)
    lab.deliver(lambda m: m.to == 1)
    lab.settle(1, 3)
    early = [m for m in lab.drop() if isinstance(m, ReadIndexReply)]
    lab.restart(2)
    lab.nodes[2].core._state.ticket = 1 << 50
    lab.beat(1)
    key = lab.read(2)
    lab.drop()
    for message in early:
        lab.step(2, message)
    assert key not in lab.reads


def test_a_lease_answers_at_once_while_it_holds():
    lab = Lab(lease_reads=True)
    lab.elect(1)
    lab.beat(1)
    key = lab.read(1)
    assert lab.reads[key] == lab[1].commit
    assert lab.wire == []


def test_a_leader_paused_past_its_lease_asks_again_when_it_resumes():
    lab = Lab(lease_reads=True)
    lab.elect(1)
    lab.write(1, b"a")
    lab.beat(1)
    lab.now += ELECTION_MS - 10
    key = lab.read(1)
    assert key not in lab.reads, "the first thing it sees after the pause is the read"
    lab.drop()
    lab.elect(2, 2, 3)
    lab.write(2, b"b", among=(2, 3))
    lab.tick(1, ms=30)
    lab.settle()
    assert key not in lab.reads
    assert lab.refused[key].reason is Refusal.LEADERSHIP_LOST


def test_a_lease_is_not_trusted_any_more_in_a_term_in_which_a_transfer_was_tried():
    lab = Lab(lease_reads=True)
    lab.elect(1)
    lab.beat(1)
    lab.transfer(1, 2)
    lab.drop()
    for _ in range(10):
        lab.beat(1)
    key = lab.read(1)
    assert key not in lab.reads, "the late TimeoutNow could still make another leader at any time"
    lab.settle()
    assert key in lab.reads


def test_waiting_reads_are_bounded():
    lab = Lab(reads_waiting_max=10)
    lab.elect(1)
    keys = [lab.read(1) for _ in range(30)]
    assert len(keys) - len(lab.refused) == 11, "ten wait, one is in a round"
    lab.settle()
    assert len(lab.reads) == 11
