"""The snapshot store: whole or not there, wherever the process is killed; the last two are kept."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from raft_faults import Crash, FaultyDisk, PowerLossDisk, flip

from denizen.raft.errors import LogDamaged, WrongDirectory
from denizen.raft.snapshot_store import SnapshotStore
from denizen.raft.types import Configuration, Snapshot

VOTERS = Configuration(voters=(1, 2, 3))


def snapshot(index: int) -> Snapshot:
    return Snapshot(index, 1, VOTERS)


def store(directory: Path, disk: FaultyDisk | None = None) -> SnapshotStore:
    opened = SnapshotStore(directory, disk)
    opened.open()
    return opened


def send(source: SnapshotStore, target: SnapshotStore, of: Snapshot, chunk_bytes: int = 1000) -> None:
    """What two cores make the stores do."""
    offset, complete = 0, False
    while not complete:
        chunk = source.read_chunk(of, offset, chunk_bytes)
        assert chunk is not None
        offset, complete = target.write_chunk(of, offset, *chunk)


def test_the_newest_saved_snapshot_is_found(tmp_path):
    saved = store(tmp_path).save(snapshot(10), [b"a" * 10, b"b" * 10])
    store(tmp_path).save(snapshot(20), b"newer")
    found = SnapshotStore(tmp_path).open()
    assert found is not None
    assert (found[0].index, found[0].configuration, found[1]) == (20, VOTERS, b"newer")
    assert store(tmp_path).read(saved) == b"a" * 10 + b"b" * 10


def test_the_last_two_are_kept(tmp_path):
    opened = store(tmp_path)
    for index in (10, 20, 30, 40):
        opened.save(snapshot(index), b"x")
    assert opened.indexes() == [30, 40]


def test_a_damaged_newest_snapshot_is_passed_over_and_no_whole_one_is_an_error(tmp_path):
    opened = store(tmp_path)
    opened.save(snapshot(10), b"older")
    opened.save(snapshot(20), b"newer")
    older, newer = sorted(tmp_path.glob("*.snap"))
    flip(newer, 20)
    found = SnapshotStore(tmp_path).open()
    assert found is not None
    assert found[1] == b"older"
    flip(older, 20)
    with pytest.raises(LogDamaged, match=r"no snapshot.*Do not put back an older copy"):
        SnapshotStore(tmp_path).open()


def test_a_file_with_a_foreign_name_never_passes_for_the_newest_snapshot(tmp_path):
    opened = store(tmp_path)
    opened.save(snapshot(10), b"older")
    stray = tmp_path / "backup.snap"
    stray.write_bytes(next(tmp_path.glob("*.snap")).read_bytes())
    with pytest.raises(WrongDirectory, match=r"backup\.snap has no name that a snapshot is given: move it out"):
        SnapshotStore(tmp_path).open()
    stray.unlink()
    assert SnapshotStore(tmp_path).open() is not None


def test_a_kill_at_any_step_of_saving_leaves_the_old_or_the_new_one(tmp_path_factory):
    seen = set()
    for crash_at in range(100):
        directory = tmp_path_factory.mktemp("crash")
        store(directory).save(snapshot(10), b"old")
        disk = FaultyDisk()
        disk.crash_at = crash_at
        try:
            SnapshotStore(directory, disk).save(snapshot(20), [b"n" * 100, b"e" * 100, b"w"])
            finished = True
        except Crash:
            finished = False
        found = SnapshotStore(directory).open()
        assert found is not None
        assert found[1] in (b"old", b"n" * 100 + b"e" * 100 + b"w")
        seen.add(found[0].index)
        assert not list(directory.glob("*.tmp")), "rests are removed"
        if finished:
            assert found[0].index == 20
            assert seen == {10, 20}
            return
    pytest.fail("never finished")


def test_a_sent_snapshot_is_the_same_file(tmp_path):
    source, target = store(tmp_path / "a"), store(tmp_path / "b")
    saved = source.save(snapshot(10), b"x" * 10_000)
    send(source, target, saved)
    target.adopt(saved)
    assert target.read(saved) == b"x" * 10_000
    assert SnapshotStore(tmp_path / "b").open() == (saved, b"x" * 10_000)


def test_a_transfer_goes_on_where_it_stopped_even_after_a_restart(tmp_path):
    source, target = store(tmp_path / "a"), store(tmp_path / "b")
    saved = source.save(snapshot(10), b"x" * 10_000)
    chunk = source.read_chunk(saved, 0, 4000)
    assert chunk is not None
    assert target.write_chunk(saved, 0, *chunk) == (4000, False)
    target = store(tmp_path / "b")
    assert target.write_chunk(saved, 0, *chunk) == (4000, False), "says where to go on"
    rest = source.read_chunk(saved, 4000, 100_000)
    assert rest is not None
    assert target.write_chunk(saved, 4000, *rest) == (saved.size, True)


def test_a_damaged_transfer_is_thrown_away_and_starts_again(tmp_path):
    source, target = store(tmp_path / "a"), store(tmp_path / "b")
    saved = source.save(snapshot(10), b"x" * 1000)
    chunk = source.read_chunk(saved, 0, 100_000)
    assert chunk is not None
    bad = bytearray(chunk[0])
    bad[500] ^= 1
    assert target.write_chunk(saved, 0, bytes(bad), True) == (0, False)
    send(source, target, saved)
    target.adopt(saved)
    assert target.read(saved) == b"x" * 1000


def test_more_bytes_than_announced_are_not_stored(tmp_path):
    source, target = store(tmp_path / "a"), store(tmp_path / "b")
    saved = source.save(snapshot(10), b"x" * 1000)
    assert target.write_chunk(saved, 0, b"y" * (saved.size + 1), False) == (0, False)


def test_a_newer_transfer_replaces_a_staged_one(tmp_path):
    target = store(tmp_path)
    target.write_chunk(replace(snapshot(10), size=100, digest=b"12345678"), 0, b"x" * 10, False)
    target.write_chunk(replace(snapshot(20), size=100, digest=b"87654321"), 0, b"x" * 10, False)
    assert len(list(tmp_path.glob("*.part"))) == 1


@pytest.mark.parametrize("step", ["save", "adopt"])
def test_a_power_loss_right_after_a_snapshot_became_durable_keeps_it(tmp_path, step):
    source, disk = store(tmp_path / "source"), PowerLossDisk()
    target = store(tmp_path / "target", disk)
    saved = source.save(snapshot(20), b"x" * 3000)
    if step == "save":
        target.save(snapshot(20), b"x" * 3000)
    else:
        send(source, target, saved)
        target.adopt(saved)
    disk.lose_power()
    assert store(tmp_path / "target").read(saved) == b"x" * 3000


def test_a_kill_at_any_step_of_receiving_and_adopting_loses_no_snapshot(tmp_path_factory):
    source = store(tmp_path_factory.mktemp("source"))
    saved = source.save(snapshot(20), b"x" * 3000)
    for crash_at in range(200):
        directory = tmp_path_factory.mktemp("crash")
        store(directory).save(snapshot(10), b"old")
        disk = FaultyDisk()
        disk.crash_at = crash_at
        target = SnapshotStore(directory, disk)
        try:
            send(source, target, saved)
            target.adopt(saved)
            finished = True
        except Crash:
            finished = False
        found = SnapshotStore(directory).open()
        assert found is not None
        assert found[0].index in (10, 20)
        if finished:
            assert found[1] == b"x" * 3000
            return
        if found[0].index == 10:  # the transfer can be finished after the restart
            again = store(directory)
            send(source, again, saved)
            again.adopt(saved)
            assert again.read(saved) == b"x" * 3000
    pytest.fail("never finished")
