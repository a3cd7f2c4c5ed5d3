"""From a directory to a core: open snapshots and log, see that they fit together, make the core of them.

Everything here blocks and runs in a thread before the node takes part in anything.
"""

import time
from dataclasses import dataclass
from random import Random

from msgspec.structs import replace

from denizen.raft.core import Core
from denizen.raft.errors import LogDamaged
from denizen.raft.runtime.home import Home
from denizen.raft.settings import Settings
from denizen.raft.snapshot_store import SnapshotStore
from denizen.raft.types import Configuration, Entry, HardState, Index, Millis, NodeId, Restored, Snapshot, Term
from denizen.raft.types import Settings as CoreSettings
from denizen.raft.wal import Base, Disk, DurableLog, Recovered


@dataclass(frozen=True, slots=True)
class Started:
    """What a node runs on: the core as the disk left it, the open log and snapshots, and the newest snapshot's data."""

    core: Core
    log: DurableLog
    store: SnapshotStore
    snapshot_index: int
    data: bytes | None
    dropped_tail_bytes: int


def start_core(  # noqa: PLR0917 - called once
    id: int, home: Home, disk: Disk, settings: Settings, founders: list[int], rng: Random
) -> Started:
    """Raises `LogDamaged` (something durable is missing), `WrongDirectory` (a foreign file) or `DiskFailed`."""
    log = DurableLog(home.log, segment_bytes=settings.segment_bytes, disk=disk)
    store = SnapshotStore(home.snapshots, disk)
    try:
        found = store.open()
        recovered = log.open(new=home.new)
        if home.new:
            home.found(settings.cluster, id, founders)
        snapshot, data = found or (None, None)
        _join(log, recovered, snapshot)
    except BaseException:
        log.close()
        raise
    restored = _restored(recovered, snapshot, home.founders, settings.snapshot_trailing_entries)
    core = Core(_core_settings(id, settings), restored, rng, Millis(int(time.monotonic() * 1000)))
    return Started(core, log, store, snapshot.index if snapshot else 0, data, recovered.dropped_bytes)


def _join(log: DurableLog, recovered: Recovered, snapshot: Snapshot | None) -> None:
    """See that the log goes on where the snapshot ends; finish a snapshot's installation that a crash cut short."""
    index, term = (snapshot.index, snapshot.term) if snapshot is not None else (0, 0)
    if recovered.base_index > index:
        raise _gap(f"the snapshot at {recovered.base_index}, which the log begins after, is missing or damaged")
    entries = recovered.entries
    if entries and entries[0].index > index + 1:
        raise _gap(f"the log begins at {entries[0].index}, but the newest whole snapshot ends at {index}")
    at = index - entries[0].index if entries else -1
    agrees = at == -1 if at < 0 else at < len(entries) and entries[at].term == term
    if index > recovered.base_index and not agrees:
        entries.clear()
        recovered.start_after(index, term, keep=False)
        log.save(None, (), Base(index, term, keep=False))


def _restored(recovered: Recovered, snapshot: Snapshot | None, founders: list[int], kept_entries: int) -> Restored:
    """What the core starts from: the entries after the snapshot, and of those before it as many as are to be kept."""
    hard_state = recovered.hard_state or HardState()
    entries = recovered.entries
    base: tuple[Index, Term] = (Index(recovered.base_index), Term(recovered.base_term))
    if snapshot is not None:
        hard_state = max(hard_state, HardState(snapshot.term), key=lambda state: state.term)
        entries, base = _tail(entries, base, snapshot, kept_entries)
    return Restored(
        hard_state=hard_state,
        snapshot=snapshot,
        entries=entries,
        base_index=base[0],
        base_term=base[1],
        configuration=Configuration(voters=tuple(NodeId(founder) for founder in founders)),
    )


def _tail(
    entries: list[Entry], base: tuple[Index, Term], snapshot: Snapshot, kept_entries: int
) -> tuple[list[Entry], tuple[Index, Term]]:
    """The entries to keep and the place right before them, whose term must be known: it is an entry's, or the base."""
    if not entries or entries[0].index > snapshot.index:
        return entries, (snapshot.index, snapshot.term)
    first = entries[0].index
    if first == base[0] + 1 and snapshot.index - base[0] <= kept_entries:
        return entries, base
    at = max(snapshot.index - kept_entries - first, 0)
    return entries[at + 1 :], (entries[at].index, entries[at].term)


def _core_settings(id: int, settings: Settings) -> CoreSettings:
    return replace(
        CoreSettings(NodeId(id)),
        election_ms=settings.election_ms,
        heartbeat_ms=settings.heartbeat_ms,
        lease_reads=settings.lease_reads,
        lease_margin_ms=settings.lease_margin_ms,
        log_kept_entries=settings.snapshot_trailing_entries,
        log_kept_bytes=settings.snapshot_trailing_bytes,
    )


def _gap(what: str) -> LogDamaged:
    return LogDamaged(f"{what}. This node lost something durable. {LogDamaged.remedy}")
