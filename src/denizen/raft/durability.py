"""What must reach the disk, and what may happen once it has.

A write takes everything of one step. Until it is reported durable, no message leaves that speaks in a newer term or
for a newer vote than the disk knows, the own log counts only as far as it is durable, and a received snapshot is not
yet restored.
"""

from denizen.raft.effects import ReadReady, Write
from denizen.raft.invariants import invariant
from denizen.raft.state import State
from denizen.raft.types import Index


def flush_write(state: State) -> None:
    """Put what is not on the disk into the step's `Write`."""
    if not (state.hard_dirty or state.unsaved or state.write_snapshot):
        return
    state.number += 1
    last = state.unsaved[-1].index if state.unsaved else Index(0)
    if state.write_snapshot is not None:
        last = max(last, state.write_snapshot.index)
        state.installing = (state.number, state.write_snapshot)
    if state.hard_dirty:
        state.hard_number = state.number
    state.effects.write = Write(
        number=state.number,
        hard_state=state.hard_state if state.hard_dirty else None,
        entries=state.unsaved,
        snapshot=state.write_snapshot,
        keep_log=state.write_keep_log,
    )
    state.pending.append((state.number, last))
    state.unsaved = []
    state.hard_dirty = False
    state.write_snapshot = None


def persisted(state: State, number: int) -> None:
    """Every write up to `number` is durable."""
    invariant(number <= state.number, "only what was asked for is reported durable", number=number)
    state.durable_number = max(state.durable_number, number)
    pending = state.pending
    while pending and pending[0][0] <= number:
        last = pending.popleft()[1]
        state.log.persisted = max(state.log.persisted, last)
    if state.installing is not None and state.installing[0] <= number:
        snapshot = state.installing[1]
        state.installing = None
        state.effects.restore = snapshot
        state.applied = snapshot.index
    if state.held and not state.hard_dirty and state.hard_number <= state.durable_number:
        state.effects.send.extend(state.held)
        state.held = []


def truncate(state: State, first: int) -> None:
    """Cut the log before `first`; writes under way no longer make durable what is cut."""
    invariant(first > state.commit, "a committed entry is never truncated", first=first, commit=state.commit)
    state.log.truncate(first)
    state.configurations.truncated(first)
    clip(state, Index(first - 1))


def clip(state: State, last: Index) -> None:
    """Forget that writes under way reach beyond `last`, and entries beyond it that no write holds yet."""
    state.pending = type(state.pending)((number, min(until, last)) for number, until in state.pending)
    state.unsaved = [entry for entry in state.unsaved if entry.index <= last]


def hand_over(state: State) -> None:
    """Give the caller what is committed and durable here, and the reads that were waiting for it."""
    until = min(state.commit, state.log.persisted)
    if until > state.applied and state.installing is None and state.write_snapshot is None:
        state.effects.apply = state.log.slice(state.applied + 1, until)
        state.applied = until
    if state.reads_confirmed:
        ready = [ReadReady(key, index) for index, key in state.reads_confirmed if index <= state.applied]
        if ready:
            state.effects.reads.extend(ready)
            state.reads_confirmed = [item for item in state.reads_confirmed if item[0] > state.applied]
