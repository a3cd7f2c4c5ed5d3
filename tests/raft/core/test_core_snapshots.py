"""Snapshots: compacting, sending, receiving, and being killed at every step of it."""

import pytest
from core_lab import ELECTION_MS, Lab

from denizen.raft.events import ChunkRead, ChunkWritten, Persisted, SnapshotMade
from denizen.raft.messages import Append, InstallSnapshot, InstallSnapshotReply
from denizen.raft.types import Configuration, Snapshot


def behind(lab, node, count=20):
    """Node 3 misses `count` commands and then a snapshot that compacts them away."""
    lab.elect(1)
    lab.beat(1)
    lab.crash(node)
    for number in range(count):
        lab.write(1, b"%d" % number)
    snapshot = lab.make_snapshot(1)
    lab.nodes[node].start()
    return snapshot


def test_a_follower_that_needs_what_is_compacted_gets_the_snapshot_in_chunks():
    lab = Lab(log_kept_entries=0, chunk_bytes=8)
    snapshot = behind(lab, 3)
    chunks = []
    lab.tick(1, ms=30)
    while lab.wire:
        chunks += [m for m in lab.wire if isinstance(m, InstallSnapshot)]
        lab.deliver()
    assert len(chunks) == -(-snapshot.size // 8)
    lab.beat(1)
    assert lab.nodes[3].applied == lab.nodes[1].applied
    assert lab[3].first_index == snapshot.index + 1
    lab.write(1, b"after")
    lab.beat(1)
    assert lab.nodes[3].applied[-1] == b"after"


def test_a_snapshot_at_exactly_the_last_index():
    lab = Lab(log_kept_entries=0)
    lab.elect(1)
    lab.write(1, b"a", b"b")
    lab.beat(1)
    snapshot = lab.make_snapshot(1)
    assert snapshot.index == lab[1].last_index
    assert (lab[1].first_index, lab[1].last_index) == (snapshot.index + 1, snapshot.index)
    lab.write(1, b"c")
    lab.restart(1)
    lab.elect(1)
    lab.beat(1)
    assert all(node.applied == [b"a", b"b", b"c"] for node in lab.nodes.values())


def test_a_follower_right_at_the_snapshot_needs_none():
    lab = Lab(log_kept_entries=0)
    lab.elect(1)
    lab.write(1, b"a")
    lab.beat(1)
    lab.make_snapshot(1)
    lab.write(1, b"b")
    assert not any("InstallSnapshot" in line for line in lab.lines)
    lab.beat(1)
    assert lab.nodes[3].applied == [b"a", b"b"]


def test_two_snapshots_in_quick_succession_while_the_first_is_sent():
    lab = Lab(log_kept_entries=0, chunk_bytes=8)
    behind(lab, 3)
    lab.tick(1, ms=30)
    for _ in range(4):
        lab.deliver()
    lab.write(1, b"more", among=(1, 2))
    newer = lab.make_snapshot(1)
    for _ in range(20):
        lab.beat(1)
    assert lab.nodes[3].applied == lab.nodes[1].applied
    assert lab[3].commit >= newer.index


def test_what_is_kept_before_a_snapshot_is_bounded_in_entries_and_in_bytes():
    for kept, settings in ((4, {"log_kept_entries": 4}), (2, {"log_kept_entries": 9, "log_kept_bytes": 2 * 124 + 10})):
        lab = Lab(voters=(1,), **settings)
        lab.elect(1)
        for _ in range(20):
            lab.write(1, b"x" * 100)
        snapshot = lab.make_snapshot(1)
        assert snapshot.index - lab[1].first_index + 1 == kept
        assert len(lab.nodes[1].disk.entries) == kept


def test_an_older_snapshot_changes_nothing():
    lab = Lab(log_kept_entries=0)
    lab.elect(1)
    lab.write(1, b"a", b"b", b"c")
    lab.beat(1)
    newest = lab.make_snapshot(1)
    lab.step(1, SnapshotMade(Snapshot(2, 1, Configuration(voters=(1, 2, 3)))))
    assert lab[1].snapshot == newest
    log, applied = lab.nodes[2].log, list(lab.nodes[2].applied)
    old = Snapshot(2, 1, Configuration(voters=(1, 2, 3)), 1)
    lab.step(2, InstallSnapshot(2, 1, 1, 99, old, 0, b"x", True))
    assert (lab.nodes[2].log, lab.nodes[2].applied) == (log, applied)


def test_a_transfer_that_broke_off_is_resumed_where_it_stopped():
    lab = Lab(log_kept_entries=0, chunk_bytes=8)
    behind(lab, 3)
    lab.tick(1, ms=30)
    for _ in range(8):
        lab.deliver()
    stored = len(lab.nodes[3].disk.staged[1])
    assert stored >= 16
    lab.drop()
    for _ in range(6):
        lab.tick(1, ms=ELECTION_MS // 2)
        lab.deliver(lambda m: not isinstance(m, InstallSnapshot))
    resumed = [m for m in lab.wire if isinstance(m, InstallSnapshot)]
    assert resumed
    assert resumed[0].offset in (stored, stored - 8)
    lab.settle()
    for _ in range(20):
        lab.beat(1)
    assert lab.nodes[3].applied == lab.nodes[1].applied


def test_a_suffix_that_agrees_with_the_snapshot_is_kept():
    lab = Lab(log_kept_entries=0)
    lab.elect(1)
    lab.write(1, *(b"%d" % number for number in range(5)))
    lab.nodes[3].disk.snapshots = {}
    lab.crash(3)
    lab.nodes[3].start()
    assert lab[3].commit == 0
    term, configuration = lab[1].snapshot_basis(4)
    snapshot = Snapshot(4, term, configuration, 1)
    lab.nodes[3].disk.snapshots[snapshot] = b"\x90"
    lab.step(3, ChunkWritten(1, snapshot, 1, True))
    assert (lab[3].first_index, lab[3].last_index, lab[3].commit) == (5, 6, 4)
    assert [entry.index for entry in lab.nodes[3].disk.entries] == [5, 6]


STEPS = ("asked", "some chunks", "all staged", "adopting", "adopted")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_of_installing_a_snapshot(step):
    lab = Lab(log_kept_entries=0, chunk_bytes=8)
    behind(lab, 3)
    lab.write(1, b"after", among=(1, 2))
    lab.tick(1, ms=30)
    lab.nodes[3].holds_disk = step == "adopting"
    rounds = {"asked": 1, "some chunks": 6, "all staged": 17, "adopting": 60, "adopted": 60}[step]
    for _ in range(rounds):
        lab.deliver()
    if step == "adopting":
        assert lab[3].commit > 0, "it is being adopted"
        assert lab[3].applied == 0, "but not restored before that is durable"
    lab.nodes[3].holds_disk = False
    lab.restart(3)
    for _ in range(40):
        lab.beat(1)
    assert lab.nodes[3].applied == lab.nodes[1].applied
    lab.restart(3)
    lab.beat(1, times=3)
    assert lab.nodes[3].applied == lab.nodes[1].applied


def test_killed_before_and_after_an_own_snapshot_is_durable():
    lab = Lab(log_kept_entries=1)
    lab.elect(1)
    lab.write(1, b"a", b"b", b"c")
    lab.beat(1)
    index = lab[2].applied
    lab[2].snapshot_basis(index)
    lab.restart(2)
    lab.beat(1, times=2)
    assert lab.nodes[2].applied == [b"a", b"b", b"c"]
    lab.make_snapshot(2)
    lab.restart(2)
    assert lab.nodes[2].applied == [b"a", b"b", b"c"], "from the snapshot, before any leader spoke"
    assert lab[2].first_index == index


def test_a_snapshot_that_is_gone_is_replaced_by_the_newest():
    lab = Lab(log_kept_entries=0, chunk_bytes=8)
    old = behind(lab, 3)
    lab.tick(1, ms=30)
    for _ in range(3):
        lab.deliver()
    lab.write(1, b"x", among=(1, 2))
    newest = lab.make_snapshot(1)
    assert old not in lab.nodes[1].disk.snapshots
    lab.step(1, InstallSnapshotReply(1, 3, lab[1].term, 1, old.index, 16))
    sent = [m for m in lab.wire if isinstance(m, InstallSnapshot)]
    assert sent[-1].snapshot == newest


def test_membership_comes_with_the_snapshot():
    lab = Lab(others=(4,), log_kept_entries=0)
    lab.elect(1)
    lab.write(1, b"a")
    lab.beat(1)
    lab.make_snapshot(1)
    lab.change(1, add_learners=(4,))
    lab.settle(1, 2, 3)
    lab.beat(1, 1, 2, 3)
    lab.make_snapshot(1)
    lab.beat(1, times=4)
    assert lab[4].configuration == Configuration(voters=(1, 2, 3), learners=(4,))
    assert lab.nodes[4].applied == [b"a"]
    lab.restart(4)
    assert lab[4].configuration.learners == (4,)


def test_a_snapshot_of_what_is_not_applied_is_refused():
    lab = Lab()
    lab.elect(1)
    with pytest.raises(ValueError, match="not applied"):
        lab[1].snapshot_basis(9)


def test_an_unasked_chunk_is_not_sent():
    lab = Lab(log_kept_entries=0)
    snapshot = behind(lab, 3)
    lab.step(1, ChunkRead(2, snapshot, 0, b"x", True))
    assert not [m for m in lab.wire if isinstance(m, InstallSnapshot)]
    lab.step(1, Persisted(0))
    assert not [m for m in lab.wire if isinstance(m, Append) and m.to == 2 and m.entries]
