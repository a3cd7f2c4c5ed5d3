"""The durable log: what was saved is read back, what was torn is dropped, what was damaged is never hidden."""

import errno
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_faults import Crash, FaultyDisk, PowerLossDisk, flip

from denizen.raft.errors import DiskFailed, LogDamaged, WrongDirectory
from denizen.raft.types import Entry, EntryKind, HardState
from denizen.raft.wal import Base, DurableLog, Recovered
from denizen.raft.wal.record import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES

SEGMENT_BYTES = 64 << 10
ENTRY_BYTES = RECORD_HEADER_BYTES + 4
FIRST = SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES
"""Where the first batch begins: a segment starts with its header and the hard state."""


def entry(index: int, term: int = 1, data: bytes = b"data") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


def begin(directory: Path, disk: FaultyDisk | None = None) -> DurableLog:
    log = DurableLog(directory, segment_bytes=SEGMENT_BYTES, disk=disk)
    log.open(new=True)
    return log


def reopen(directory: Path) -> Recovered:
    log = DurableLog(directory, segment_bytes=SEGMENT_BYTES)
    try:
        return log.open()
    finally:
        log.close()


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.wal"))


def forget_mark(directory: Path) -> None:
    """The durable mark as it is after a power loss: never written."""
    (directory / "durable.mark").write_bytes(b"")


def write_beyond_the_last_sync(directory: Path, entries: list[Entry]) -> None:
    """Leave a batch in the file that no sync was reported for, as a crash in mid-save does."""
    disk = FaultyDisk()
    log = DurableLog(directory, segment_bytes=SEGMENT_BYTES, disk=disk)
    log.open()
    disk.fail_sync = lambda: OSError(errno.EIO, "lost power")
    with pytest.raises(DiskFailed):
        log.save(None, entries)
    log.close()


def test_saved_batches_are_read_back(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(3, 2), [entry(1), entry(2, 3, b"")])
    log.save(None, [entry(3, 3, b"x" * 5000)])
    log.save(HardState(4, 0))
    log.close()
    recovered = reopen(tmp_path)
    assert recovered.hard_state == HardState(4, 0)
    assert recovered.entries == [entry(1), entry(2, 3, b""), entry(3, 3, b"x" * 5000)]
    assert recovered.dropped_bytes == 0


def test_a_later_entry_replaces_the_tail(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(index) for index in range(1, 10)])
    log.save(HardState(2, 0), [entry(4, 2, b"other")])
    log.close()
    assert reopen(tmp_path).entries == [entry(1), entry(2), entry(3), entry(4, 2, b"other")]


def test_one_sync_makes_a_whole_batch_durable(tmp_path):
    disk = FaultyDisk()
    log = begin(tmp_path, disk)
    before = disk.syncs
    log.save(HardState(1, 1), [entry(index) for index in range(1, 500)])
    assert disk.syncs == before + 1
    log.close()


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 10 * ENTRY_BYTES), rest=st.sampled_from([b"", b"\x00" * 64, b"\xff" * 64]))
def test_a_torn_tail_is_dropped_wherever_it_is_torn(tmp_path_factory, cut, rest):
    directory = tmp_path_factory.mktemp("log")
    log = begin(directory)
    log.save(HardState(1, 1), [entry(1), entry(2)])
    log.close()
    durable_end = FIRST + RECORD_HEADER_BYTES + 2 * ENTRY_BYTES
    write_beyond_the_last_sync(directory, [entry(index) for index in range(3, 13)])
    segment = segments(directory)[0]
    data = segment.read_bytes()
    segment.write_bytes(data[: durable_end + cut] + rest)
    kept = [entry(index) for index in range(1, 3 + cut // ENTRY_BYTES)]
    assert reopen(directory).entries == kept
    assert reopen(directory).entries == kept, "the torn rest must not come back"


def test_after_a_torn_tail_the_log_goes_on_cleanly(tmp_path):
    begin(tmp_path).close()
    write_beyond_the_last_sync(tmp_path, [entry(1, 1, b"a" * 100), entry(2, 1, b"b" * 100), entry(3, 1, b"c" * 100)])
    flip(segments(tmp_path)[0], FIRST + 5)  # in entry 1: 2 and 3 are still whole
    log = DurableLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    assert log.open().entries == []
    log.save(None, [entry(1, 2, b"A" * 100)])
    log.close()
    assert reopen(tmp_path).entries == [entry(1, 2, b"A" * 100)]


@pytest.mark.parametrize("with_mark", [True, False])
@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3 * ENTRY_BYTES + RECORD_HEADER_BYTES - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_below_the_durable_mark_is_damage(tmp_path_factory, with_mark, at, bit):
    directory = tmp_path_factory.mktemp("log")
    log = begin(directory)
    log.save(HardState(1, 1), [entry(1), entry(2), entry(3)])
    log.save(None, [entry(4)])
    log.close()
    if not with_mark:
        forget_mark(directory)
    flip(segments(directory)[0], SEGMENT_HEADER_BYTES + at, bit)
    with pytest.raises(LogDamaged, match="remove this member"):
        reopen(directory)


def test_a_flipped_bit_in_the_last_batch_is_damage_because_of_the_mark(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(1)])
    log.close()
    flip(segments(tmp_path)[0], FIRST + RECORD_HEADER_BYTES + 3)
    with pytest.raises(LogDamaged):
        reopen(tmp_path)


def test_a_cut_file_is_damage_when_more_of_it_was_durable(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(1), entry(2)])
    log.close()
    segment = segments(tmp_path)[0]
    segment.write_bytes(segment.read_bytes()[: FIRST + RECORD_HEADER_BYTES + 5])
    with pytest.raises(LogDamaged):
        reopen(tmp_path)


def test_damage_in_an_older_segment_is_found_without_the_mark(tmp_path):
    log = begin(tmp_path)
    for index in range(1, 200):
        log.save(None, [entry(index, 1, b"x" * 1000)])
    log.close()
    assert len(segments(tmp_path)) > 2
    forget_mark(tmp_path)
    first = segments(tmp_path)[0]
    data = first.read_bytes().rstrip(b"\x00")
    flip(first, len(data) - 10)
    with pytest.raises(LogDamaged):
        reopen(tmp_path)


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_is_damage(tmp_path, which):
    log = begin(tmp_path)
    for index in range(1, 200):
        log.save(None, [entry(index, 1, b"x" * 1000)])
    log.close()
    segments(tmp_path)[which].unlink()
    if which == 0:  # as compaction leaves it: the node finds the gap between snapshot and log
        assert reopen(tmp_path).entries[0].index > 1
    else:
        with pytest.raises(LogDamaged):
            reopen(tmp_path)


def test_a_log_whose_files_are_all_gone_is_damage(tmp_path):
    begin(tmp_path).close()
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(LogDamaged, match="missing"):
        reopen(tmp_path)


@pytest.mark.parametrize("name", ["0000000000000001 (copy).wal", "1.wal", "0000000000000001_0.wal", "old.wal"])
def test_a_file_with_a_foreign_name_is_named_with_what_to_do(tmp_path, name):
    begin(tmp_path).close()
    stray = tmp_path / name
    stray.write_bytes(segments(tmp_path)[0].read_bytes())
    with pytest.raises(WrongDirectory) as told:
        reopen(tmp_path)
    assert str(told.value).startswith(f"{stray} has no name that the log gives")
    assert "move it out" in str(told.value)
    stray.unlink()
    reopen(tmp_path)


def test_damage_is_not_told_to_be_cured_by_an_old_copy(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(1)])
    log.close()
    flip(segments(tmp_path)[0], FIRST + 3)
    with pytest.raises(LogDamaged) as told:
        reopen(tmp_path)
    said = str(told.value)
    assert "Do not put back an older copy" in said
    assert "remove this member from the cluster, empty its directory and add it under a new id" in said
    assert "made after the node had stopped for the last time" in said


def test_a_segment_of_another_place_is_refused(tmp_path):
    log = begin(tmp_path)
    for index in range(1, 200):
        log.save(None, [entry(index, 1, b"x" * 1000)])
    log.close()
    first, second, *_ = segments(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(LogDamaged):
        reopen(tmp_path)


def test_after_a_failed_sync_nothing_is_acknowledged_ever_again(tmp_path):
    disk = FaultyDisk()
    log = begin(tmp_path, disk)
    log.save(HardState(1, 1), [entry(1)])
    disk.fail_sync = lambda: OSError(errno.EIO, "Input/output error")
    with pytest.raises(DiskFailed, match="Input/output error"):
        log.save(None, [entry(2)])
    disk.fail_sync = lambda: None
    syncs = disk.syncs
    with pytest.raises(DiskFailed):
        log.save(None, [entry(2)])
    assert disk.syncs == syncs, "a failed fsync is never tried again"


def test_what_a_failed_sync_left_is_written_again_before_it_counts(tmp_path):
    begin(tmp_path).close()
    write_beyond_the_last_sync(tmp_path, [entry(1), entry(2)])
    disk = FaultyDisk()
    written: list[tuple[int, int]] = []
    log = DurableLog(tmp_path, segment_bytes=SEGMENT_BYTES, disk=disk)
    disk.write = lambda fd, data, offset: written.append((offset, len(data)))  # type: ignore[method-assign]
    assert len(log.open().entries) == 2
    assert (FIRST, 2 * ENTRY_BYTES) in written
    log.close()


def test_running_out_of_space_in_mid_append_stops_the_log_and_loses_nothing_acknowledged(tmp_path):
    disk = FaultyDisk()
    log = begin(tmp_path, disk)
    log.save(HardState(1, 1), [entry(1)])
    disk.space = 100
    with pytest.raises(DiskFailed, match="No space left"):
        log.save(None, [entry(2, 1, b"x" * 1000)])
    with pytest.raises(DiskFailed):
        log.save(None, [entry(2)])
    disk.space = None
    log.close()
    recovered = reopen(tmp_path)
    assert recovered.entries == [entry(1)]
    assert recovered.dropped_bytes > 0


def test_a_real_file_size_limit_is_met_when_a_segment_is_begun(tmp_path):
    log = begin(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    index = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES // 2, hard))
        while True:
            index += 1
            log.save(None, [entry(index, 1, b"x" * 1000)])
    except DiskFailed:
        pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()
    assert [e.index for e in reopen(tmp_path).entries] == list(range(1, index))


def test_segments_roll_and_whole_ones_are_deleted_below_a_snapshot(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(7, 2))
    for index in range(1, 400):
        log.save(None, [entry(index, 7, b"x" * 1000)])
    count = len(segments(tmp_path))
    assert log.compact(200) > 1
    assert len(segments(tmp_path)) < count
    log.close()
    recovered = reopen(tmp_path)
    assert recovered.hard_state == HardState(7, 2), "each segment begins with the hard state"
    assert recovered.entries[0].index <= 201
    assert [e.index for e in recovered.entries] == list(range(recovered.entries[0].index, 400))
    log = DurableLog(tmp_path, segment_bytes=SEGMENT_BYTES)
    log.open()
    assert log.compact(10_000) > 1, "what may be deleted is known after a restart too"
    assert len(segments(tmp_path)) == 1
    log.close()


def test_a_batch_larger_than_a_segment_fits(tmp_path):
    log = begin(tmp_path)
    log.save(None, [entry(1)])
    log.save(None, [entry(2, 1, b"x" * (3 * SEGMENT_BYTES))])
    log.save(None, [entry(3)])
    log.close()
    assert [e.index for e in reopen(tmp_path).entries] == [1, 2, 3]


def test_an_installed_snapshot_drops_what_it_stands_for(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(index) for index in range(1, 10)])
    log.save(None, (), Base(5, 1, keep=True))
    log.close()
    recovered = reopen(tmp_path)
    assert (recovered.base_index, recovered.base_term) == (5, 1)
    assert [e.index for e in recovered.entries] == [6, 7, 8, 9]


def test_an_installed_snapshot_that_contradicts_the_log_drops_it_all(tmp_path):
    log = begin(tmp_path)
    log.save(HardState(1, 1), [entry(index) for index in range(1, 10)])
    log.save(HardState(3, 0), (), Base(5, 3, keep=False))
    log.save(None, [entry(6, 3)])
    log.close()
    recovered = reopen(tmp_path)
    assert recovered.entries == [entry(6, 3)]


@pytest.mark.parametrize("disk_type", [FaultyDisk, PowerLossDisk])
def test_the_log_survives_a_crash_at_any_step(tmp_path_factory, disk_type):
    """Kill, or cut the power, at each change of the disk: everything acknowledged is there, and nothing invented."""
    for crash_at in range(1, 250):
        directory = tmp_path_factory.mktemp("crash")
        disk = disk_type()
        disk.crash_at = crash_at
        log = DurableLog(directory, segment_bytes=SEGMENT_BYTES, disk=disk)
        opened, acknowledged, survived = False, 0, False
        try:
            log.open(new=True)
            opened = True
            for index in range(1, 13):
                log.save(HardState(index, 1), [entry(index, index, b"x" * 20_000)])
                acknowledged = index
                log.compact(index - 5)
            survived = True
        except Crash:
            pass
        if isinstance(disk, PowerLossDisk):
            disk.lose_power()
        disk.crash_at = None
        log.close()
        log = DurableLog(directory, segment_bytes=SEGMENT_BYTES)
        recovered = log.open(new=not opened)
        log.close()
        last = recovered.entries[-1].index if recovered.entries else 0
        assert acknowledged <= last <= acknowledged + 1
        if acknowledged:
            assert recovered.hard_state is not None
            assert recovered.hard_state.term >= acknowledged
        if survived:
            return
    pytest.fail("the script was never carried out to its end")
