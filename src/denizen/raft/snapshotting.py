"""Snapshots: compacting the own log, sending one to a follower that is too far behind, receiving one (paper, section
7).

The bytes never pass through the core but for the chunk at hand. The sender asks the caller for a chunk, sends it, and
goes on from where the receiver says that it has stored; so a broken transfer is resumed, also by another leader with
the same snapshot. A received snapshot that is complete on the disk is adopted by a `Write`, and restored once that
write is durable.
"""

from denizen.raft.durability import clip
from denizen.raft.effects import ReadChunk, WriteChunk
from denizen.raft.events import ChunkRead, ChunkWritten, SnapshotMade
from denizen.raft.following import heard_leader
from denizen.raft.invariants import invariant
from denizen.raft.messages import InstallSnapshot, InstallSnapshotReply
from denizen.raft.progress import Mode, Progress
from denizen.raft.rounds import answered
from denizen.raft.state import State
from denizen.raft.types import Index, Snapshot


def begin(state: State, progress: Progress) -> None:
    """The entries this follower needs are compacted: send it the newest snapshot."""
    snapshot = state.snapshot
    invariant(snapshot is not None, "what is compacted is in a snapshot", base=state.log.base_index)
    if snapshot is not None:
        progress.send_snapshot(snapshot, state.now)
        _ask(state, progress)


def _ask(state: State, progress: Progress) -> None:
    progress.asked_at = state.now
    if progress.snapshot is not None:
        chunk = ReadChunk(progress.node, progress.snapshot, progress.offset, state.settings.chunk_bytes)
        state.effects.read_chunks.append(chunk)


def ask_again(state: State, progress: Progress) -> None:
    """A chunk, or the answer to it, seems lost: send it again."""
    if state.now - progress.asked_at >= 2 * state.settings.election_ms:
        _ask(state, progress)


def chunk_read(state: State, event: ChunkRead) -> None:
    """The caller read a chunk: send it. If that snapshot is gone, begin with the newest."""
    leading = state.leading
    progress = leading.progress.get(event.to) if leading is not None else None
    if leading is None or progress is None or progress.snapshot != event.snapshot or progress.offset != event.offset:
        return
    if event.data is None:
        if progress.snapshot != state.snapshot:
            begin(state, progress)
        return
    state.send(
        InstallSnapshot(
            progress.node, state.id, state.term, leading.round, event.snapshot, event.offset, event.data, event.last
        )
    )


def on_install_reply(state: State, message: InstallSnapshotReply) -> None:
    """The receiver says where to go on."""
    leading = state.leading
    progress = leading.progress.get(message.sender) if leading is not None else None
    if leading is None or progress is None:
        return
    answered(state, leading, progress, message.round)
    current = progress.snapshot
    if progress.mode is not Mode.SNAPSHOT or current is None or current.index != message.snapshot_index:
        return
    if message.offset != progress.offset:
        progress.offset = message.offset
        _ask(state, progress)


def on_install(state: State, message: InstallSnapshot) -> None:
    """A chunk from the leader of this term."""
    heard_leader(state, message)
    if message.snapshot.index <= state.commit:  # have it, or everything in it
        state.following.ack_due = True
        return
    state.effects.write_chunks.append(
        WriteChunk(message.sender, message.snapshot, message.offset, message.data, message.last)
    )


def chunk_written(state: State, event: ChunkWritten) -> None:
    """The caller stored a chunk: adopt the snapshot if it is complete, else ask for more."""
    if event.complete and event.snapshot.index > state.commit and state.leading is None:
        adopt(state, event.snapshot)
    elif not event.complete and event.sender == state.leader:
        state.send(
            InstallSnapshotReply(
                event.sender, state.id, state.term, state.following.round, event.snapshot.index, event.stored
            )
        )


def adopt(state: State, snapshot: Snapshot) -> None:
    """Put a received snapshot in the place of the log before it. What follows it is kept if the log agrees with it."""
    log = state.log
    keep = log.term(snapshot.index) == snapshot.term
    if keep:
        log.compact(snapshot.index)
        state.configurations.compacted(snapshot.index)
        state.unsaved = [entry for entry in state.unsaved if entry.index > snapshot.index]
    else:
        clip(state, Index(0))
        log.reset(snapshot.index, snapshot.term)
        state.configurations.reset(snapshot.index, snapshot.configuration)
    state.write_snapshot, state.write_keep_log = snapshot, keep
    state.snapshot = snapshot
    state.commit = snapshot.index
    state.following.verified = max(state.following.verified, snapshot.index)


def made(state: State, event: SnapshotMade) -> None:
    """The caller has a newer snapshot of its own: compact the log, but for a tail that slow followers may need."""
    snapshot = event.snapshot
    invariant(snapshot.index <= state.applied, "a snapshot holds only what was applied", index=snapshot.index)
    if state.snapshot is not None and snapshot.index <= state.snapshot.index:
        return
    state.snapshot = snapshot
    settings = state.settings
    until = state.log.tail_start(snapshot.index, settings.log_kept_entries, settings.log_kept_bytes)
    if until > state.log.base_index:
        state.log.compact(until)
        state.configurations.compacted(until)
        state.effects.compact = until
