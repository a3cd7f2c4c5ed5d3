"""The small parts by themselves, against the obvious slow way of doing the same."""

from itertools import pairwise, product
from random import Random

import pytest

from denizen.raft.configuration import ConfigurationHistory, encode_configuration
from denizen.raft.core import Core
from denizen.raft.errors import RaftError
from denizen.raft.invariants import InvariantBroken
from denizen.raft.log import ENTRY_OVERHEAD_BYTES, Log
from denizen.raft.messages import Append, MalformedMessage, PreVote, decode_packet, encode_packet
from denizen.raft.quorum import Outcome, reached, tally
from denizen.raft.types import Configuration, Entry, EntryKind, Restored, Settings


def make(terms, first=1, size=0):
    return [Entry(i, t, EntryKind.COMMAND, b"x" * size) for i, t in enumerate(terms, first)]


def rising_terms(rng, length):
    terms = [1]
    while len(terms) < length:
        terms.append(terms[-1] + (rng.random() < 0.2) * rng.randint(1, 2))
    return terms


def test_the_agreement_found_from_runs_is_the_last_common_entry():
    rng = Random(1)
    for _ in range(500):
        shared = rising_terms(rng, rng.randint(1, 20))
        top = shared[-1]
        # one goes on in even terms, the other in odd ones, as two lines of leaders do
        one = [*shared, *sorted(top + 2 * rng.randint(1, 5) for _ in range(rng.randint(0, 10)))]
        other = [*shared, *sorted(top + 2 * rng.randint(1, 5) + 1 for _ in range(rng.randint(0, 10)))]
        mine, theirs = Log(0, 0, make(one)), Log(0, 0, make(other))
        common = max(i for i in range(len(shared) + 1) if one[:i] == other[:i])
        assert mine.agreement(theirs.runs()) == theirs.agreement(mine.runs()) == common


def test_a_log_does_what_a_list_does():
    rng = Random(2)
    for _ in range(200):
        log, entries, base = Log(0, 0), [], 0
        for _ in range(30):
            choice = rng.random()
            last = base + len(entries)
            if choice < 0.6:
                term = (entries[-1].term if entries else log.base_term) + rng.randint(0, 1)
                fresh = make([max(term, 1)] * rng.randint(1, 5), last + 1, rng.randint(0, 9))
                log.append(fresh)
                entries += fresh
            elif choice < 0.8 and entries:
                first = rng.randint(base + 1, last)
                log.truncate(first)
                del entries[first - base - 1 :]
            elif entries:
                index = rng.randint(base + 1, last)
                log.compact(index)
                del entries[: index - base]
                base = index
            check_like_list(log, entries, base)


def check_like_list(log, entries, base):
    assert (log.base_index, log.last_index) == (base, base + len(entries))
    assert log.slice(base + 1, log.last_index) == entries
    assert [log.term(entry.index) for entry in entries] == [entry.term for entry in entries]
    assert log.last_term == (entries[-1].term if entries else log.base_term)
    assert log.bytes_after(base) == sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries)
    runs = [(run.term, run.last_index) for run in reversed(log.runs())]
    all_terms = [(base, log.base_term), *((entry.index, entry.term) for entry in entries)]
    ends = [(term, index) for (index, term), (_, later) in pairwise([*all_terms, (0, None)]) if term != later]
    assert runs == ends


@pytest.mark.parametrize("size", [0, 10, 100])
def test_a_batch_keeps_both_limits_but_always_moves(size):
    log = Log(0, 0, make([1] * 50, size=size))
    one = size + ENTRY_OVERHEAD_BYTES
    for first, entries_max, bytes_max in product((1, 17, 50), (1, 7, 99), (1, one, 3 * one, 10**6)):
        batch, size_of_batch = log.batch(first, entries_max, bytes_max)
        expected = max(min(entries_max, bytes_max // one, 51 - first), 1)
        assert [entry.index for entry in batch] == list(range(first, first + expected))
        assert size_of_batch == expected * one


def test_holes_and_falling_terms_break_an_invariant():
    log = Log(0, 0, make([1, 2]))
    with pytest.raises(InvariantBroken, match="holes"):
        log.append(make([2], first=4))
    with pytest.raises(InvariantBroken, match="never fall"):
        log.append(make([1], first=3))
    assert issubclass(InvariantBroken, RaftError)


def test_a_quorum_is_what_counting_says():
    rng = Random(3)
    for _ in range(300):
        values = {node: rng.randint(0, 5) for node in range(1, 6)}
        voters = tuple(sorted(rng.sample(sorted(values), rng.randint(1, 5))))
        outgoing = tuple(sorted(rng.sample(sorted(values), rng.randint(0, 5))))
        configuration = Configuration(voters, outgoing)

        def holds(at, groups=(voters, outgoing), values=values):
            return all(2 * sum(values[node] >= at for node in group) > len(group) for group in groups if group)

        assert reached(configuration, values.__getitem__) == max(at for at in range(6) if holds(at))
        votes = {node: rng.random() < 0.5 for node in values if rng.random() < 0.7}
        outcome = tally(configuration, votes)
        wins = all(2 * sum(votes.get(n, False) for n in g) > len(g) for g in (voters, outgoing) if g)
        hopeless = any(2 * sum(votes.get(n, True) for n in g) <= len(g) for g in (voters, outgoing) if g)
        assert outcome is (Outcome.LOST if hopeless else Outcome.WON if wins else Outcome.PENDING)


def test_nobody_wins_without_voters():
    assert tally(Configuration(), {1: True}) is Outcome.LOST
    assert reached(Configuration(), lambda node: 9) == 0


def test_configurations_follow_the_log():
    one, two, three = (Configuration(voters=tuple(range(1, n + 1))) for n in (1, 2, 3))
    history = ConfigurationHistory(0, one)
    history.appended([Entry(i, 1, EntryKind.CONFIGURATION, encode_configuration(c)) for i, c in ((5, two), (9, three))])
    assert [history.at(index) for index in (0, 4, 5, 8, 9, 20)] == [one, one, two, two, three, three]
    history.compacted(6)
    assert history.at(6) == two
    history.truncated(9)
    assert (history.current, history.current_index) == (two, 5)


def test_packets_are_checked():
    good = Append(2, 1, 3, 4, 5, 6, 3, make([3, 3], first=7, size=3))
    assert decode_packet(encode_packet([good, good])) == [good, good]
    wrong = [b"", b"\x93\x01\x90", b"\x92\x02\x90", encode_packet([good])[:-1], b"\x92\x01\x91\x91\x63", b"\xc1"]
    wrong.append(encode_packet([PreVote(-1, 1, 1, 1, 1)]))
    wrong.append(encode_packet([PreVote(1, 1, 1 << 63, 1, 1)]))
    wrong.append(encode_packet([Append(2, 1, 3, 4, 5, 6, 3, make([1] * 5_000))]))
    for data in wrong:
        with pytest.raises(MalformedMessage):
            decode_packet(data)


def test_random_bytes_are_malformed_or_a_packet():
    rng = Random(4)
    packet = bytearray(encode_packet([Append(2, 1, 3, 4, 5, 6, 3, make([3, 3], first=7, size=3))]))
    for _ in range(2_000):
        changed = bytearray(packet)
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            decode_packet(changed)
        except MalformedMessage:
            continue


def test_a_lease_needs_the_quorum_check():
    with pytest.raises(ValueError, match="check_quorum"):
        Core(Settings(id=1, lease_reads=True, check_quorum=False), Restored(), Random(1), 0)
