"""Replication: what fits is kept, what differs is replaced, what is durable at a quorum is committed."""

import pytest
from core_lab import ELECTION_MS, Lab

from denizen.raft.effects import Refusal
from denizen.raft.messages import Append, AppendReply, TermRun
from denizen.raft.types import Entry, EntryKind

# The logs of figure 7 of the paper, by the terms of their entries; the leader's is the first.
FIGURE_7 = {
    1: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6),
    2: (1, 1, 1, 4, 4, 5, 5, 6, 6),
    3: (1, 1, 1, 4),
    4: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    5: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    6: (1, 1, 1, 4, 4, 4, 4),
    7: (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


def entries(first, *terms):
    return [Entry(i, t, EntryKind.COMMAND, b"x") for i, t in enumerate(terms, first)]


def test_figure_7_every_follower_comes_to_the_leaders_log():
    lab = Lab(voters=tuple(FIGURE_7))
    for node, terms in FIGURE_7.items():
        lab.preset(node, terms, term=7)
    lab.elect(1)
    lab.beat(1, times=2)
    expected = [*enumerate(FIGURE_7[1], 1), (11, 8)]
    assert all(node.log == expected for node in lab.nodes.values())
    assert all(node.core.commit == 11 for node in lab.nodes.values())


def test_figure_8_an_entry_of_an_older_term_is_not_committed_by_counting():
    lab = Lab(voters=(1, 2, 3, 4, 5))
    lab.preset(1, (1, 2), term=3)
    lab.preset(2, (1, 2), term=3)
    lab.preset(3, (1,), term=3)
    lab.preset(4, (1,), term=3)
    lab.preset(5, (1, 3), term=3)
    lab.elect(1, 1, 2, 3, 4)
    assert (lab[1].term_at(2), lab[1].commit) == (2, 3), "with an entry of its own term all before it is committed"


def test_figure_8_a_majority_with_an_entry_of_an_older_term_alone_commits_nothing():
    lab = Lab(append_entries_max=1)
    lab.preset(1, (1, 2), term=3)
    lab.preset(2, (1,), term=3)
    lab.preset(3, (1,), term=3)
    lab.campaign(1)
    while not any(isinstance(m, Append) and m.entries and m.entries[0].index == 2 for m in lab.wire):
        lab.deliver()
    lab.deliver(lambda m: isinstance(m, Append) and m.entries and m.entries[0].index == 2)
    lab.drop(lambda m: isinstance(m, Append))
    lab.deliver()
    assert lab[1].matches == {2: 2, 3: 2}
    assert lab[1].commit == 0, "all three have the entry of term 2, but it is not of this term"
    lab.beat(1, times=2)
    assert lab[1].commit == 3


def test_figure_8_in_full_what_an_older_leader_left_may_be_overwritten():
    lab = Lab(voters=(1, 2, 3, 4, 5))
    for node, terms in {1: (1, 2), 2: (1, 2), 3: (1,), 4: (1,), 5: (1, 3)}.items():
        lab.preset(node, terms, term=3)
    lab.campaign(1)
    lab.settle(1, 2)  # nobody else hears it
    lab.campaign(1)
    for _ in range(2):
        lab.deliver(lambda m: not isinstance(m, Append) and 5 not in (m.to, m.sender))
        lab.deliver(lambda m: not isinstance(m, Append) and 5 not in (m.to, m.sender))
    held = lab.drop(lambda m: isinstance(m, Append))
    lab.drop()
    assert held, "1 leads term 4"
    # only the entry of term 2 reaches 3, the leader's own of term 4 does not
    lab.step(3, Append(3, 1, lab[1].term, 1, 0, 1, 1, entries(2, 2)))
    lab.settle(1, 2, 3)
    assert lab[1].commit < 2 or lab[3].term_at(3) == lab[1].term
    lab.preset(3, (1, 2), term=lab[1].term)
    lab.preset(2, (1, 2), term=lab[1].term)
    lab.crash(1)
    lab.campaign(5)
    lab.settle(2, 3, 4, 5)
    lab.campaign(5)
    lab.settle(2, 3, 4, 5)
    lab.beat(5, 2, 3, 4, 5)
    assert [lab[node].term_at(2) for node in (2, 3, 4, 5)] == [3, 3, 3, 3]


def test_a_delayed_or_repeated_append_never_cuts_a_suffix_that_agrees():
    lab = Lab()
    lab.elect(1)
    lab.propose(1, b"a")
    early = [message for message in lab.wire if message.to == 2]
    lab.settle()
    lab.write(1, b"b", b"c")
    log, written = lab.nodes[2].log, lab.nodes[2].written
    for _ in range(3):
        for message in early:
            lab.step(2, message)
    assert lab.nodes[2].log == log
    assert lab.nodes[2].written == written, "nothing was written again"


def test_rejections_out_of_order_do_no_harm():
    lab = Lab()
    for node, terms in {1: (1, 1, 1, 2, 2), 2: (1, 1, 1, 2, 2), 3: (1,)}.items():
        lab.preset(node, terms, term=2)
    lab.elect(1, 1, 2)
    lab.step(1)
    lab.tick(1, ms=30)
    lab.deliver(lambda m: m.to == 3)
    rejections = lab.drop(lambda m: isinstance(m, AppendReply) and m.sender == 3 and m.conflict)
    assert rejections
    lab.step(1, rejections[0])
    lab.settle()
    lab.beat(1)
    for late in rejections * 3:
        lab.step(1, late)
    lab.write(1, b"more")
    lab.beat(1)
    assert lab.nodes[3].log == lab.nodes[1].log
    assert lab[1].matches[3] == lab[1].last_index


def test_a_heartbeat_with_a_high_commit_does_not_commit_a_suffix_that_may_differ():
    lab = Lab()
    lab.preset(3, (1, 1, 1, 1), term=1)
    lab.step(3, Append(3, 1, 2, 1, 4, 1, 1, []))
    assert lab[3].commit == 1, "the log is known to agree with this leader's up to 1 only"
    lab.step(3, Append(3, 1, 2, 1, 4, 1, 1, entries(2, 2)))
    assert (lab[3].commit, lab.nodes[3].log) == (2, [(1, 1), (2, 2)])


def test_a_follower_ten_thousand_entries_and_fifty_terms_apart_converges_in_few_round_trips():
    lab = Lab(inflight_messages_max=64, append_entries_max=1_024)
    shared = [1] * 100
    leader_terms = shared + [term for term in range(2, 102, 2) for _ in range(200)]
    follower_terms = shared + [term for term in range(3, 101, 2) for _ in range(200)]
    lab.preset(1, leader_terms, term=200)
    lab.preset(2, leader_terms, term=200)
    lab.preset(3, follower_terms, term=200)
    lab.elect(1, 1, 2)
    trips = 0
    lab.tick(1, ms=30)
    while lab[1].matches[3] < lab[1].last_index:
        lab.deliver(lambda m: m.to != 1)
        lab.deliver(lambda m: m.to == 1)
        trips += 1
        assert trips < 10
    assert lab.nodes[3].log == lab.nodes[1].log
    assert trips <= 3, "one to find the agreement, two to send everything"


def test_agreement_is_found_from_the_runs_of_terms_alone():
    lab = Lab()
    lab.preset(1, (1, 1, 1, 2, 2, 4, 4))
    log = lab[1]._state.log
    assert log.agreement((TermRun(3, 8), TermRun(2, 6), TermRun(1, 3))) == 5
    assert log.agreement((TermRun(5, 9), TermRun(4, 6), TermRun(2, 5))) == 6
    assert log.agreement((TermRun(3, 9), TermRun(0, 0))) == 0


def test_a_full_window_stops_the_leader_and_an_answer_lets_it_go_on():
    lab = Lab(inflight_messages_max=3, append_entries_max=1)
    lab.elect(1)
    for number in range(10):
        lab.propose(1, b"%d" % number)
    to_2 = [message for message in lab.wire if message.to == 2]
    assert len(to_2) == 3
    lab.settle()
    lab.beat(1)
    assert lab[2].commit == lab[1].commit == 11
    assert len(lab[1]._state.leading.progress[2].inflight) == 0


def test_a_full_window_of_lost_messages_is_noticed_at_the_next_heartbeat():
    lab = Lab(inflight_messages_max=3, append_entries_max=1)
    lab.elect(1)
    for number in range(10):
        lab.propose(1, b"%d" % number)
    lab.drop()
    lab.beat(1, times=2)
    assert lab[2].commit == lab[1].commit == 11


def test_a_leader_without_a_quorum_under_load_refuses_and_stays_bounded():
    lab = Lab(uncommitted_entries_max=20, uncommitted_bytes_max=10_000)
    lab.elect(1)
    keys = [lab.propose(1, b"x" * 100) for _ in range(200)]
    lab.drop()
    refused = [key for key in keys if key in lab.refused]
    assert {lab.refused[key].reason for key in refused} == {Refusal.BUSY}
    assert len(refused) == 180
    assert lab[1].last_index - lab[1].commit <= 20
    big = lab.propose(1, b"y" * 20_000)
    assert lab.refused[big].reason is Refusal.BUSY
    lab.tick(1, ms=3 * ELECTION_MS)
    assert lab.refused[lab.propose(1, b"z")].reason is Refusal.NOT_LEADER


def test_the_leader_counts_itself_only_once_its_own_disk_is_done():
    lab = Lab()
    lab.elect(1)
    lab.nodes[1].holds_disk = lab.nodes[2].holds_disk = True
    key = lab.propose(1, b"a")
    at = lab.accepted[key].first_index
    assert any(isinstance(m, Append) and m.entries for m in lab.wire), "sent before it is durable here"
    lab.settle()
    assert lab[1].commit < at, "one durable copy of three"
    lab.sync(2)
    lab.settle()
    assert lab[1].commit == at, "two followers are a quorum"
    assert lab.nodes[1].applied == [], "but nothing is applied that is not durable here"
    lab.sync(1)
    assert lab.nodes[1].applied == [b"a"]


def test_an_acknowledgement_waits_for_the_disk():
    lab = Lab()
    lab.elect(1)
    lab.nodes[2].holds_disk = True
    lab.propose(1, b"a")
    lab.deliver(lambda m: m.to == 2)
    assert not [m for m in lab.wire if isinstance(m, AppendReply)]
    lab.tick(1, ms=30)
    lab.deliver(lambda m: m.to == 2)
    (heard,) = [m for m in lab.wire if isinstance(m, AppendReply)]
    assert (heard.match, heard.conflict) == (1, 0), "it answers the heartbeat, but only for what is durable"


@pytest.mark.parametrize("broken", [0, 1])
def test_an_append_with_holes_is_ignored(broken):
    lab = Lab()
    lab.elect(1)
    log = lab.nodes[2].log
    sent = entries(2, 1, 1, 1)
    sent[2 if broken else 0] = Entry(9, 1, EntryKind.COMMAND, b"x")
    lab.step(2, Append(2, 1, 1, 5, 0, 1, 1, sent))
    assert lab.nodes[2].log == log
