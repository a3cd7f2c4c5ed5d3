"""The loop around the core: gather what happened, step once, carry out what follows.

Everything that arrives in one turn of the event loop (frames, commands, reads, finished writes) becomes one step of the
core. Its writes go to the log's thread and its messages leave at the same time: the core holds back whatever may only
be said when durable. Committed entries are applied on the loop, a slice at a time, so that heartbeats never wait long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from denizen.raft import limits
from denizen.raft.effects import Effects, Leadership, ReadChunk, WriteChunk
from denizen.raft.errors import ChangeRefused, LogDamaged, Overloaded, Stopped
from denizen.raft.events import Change, ChunkRead, ChunkWritten, Event, Persisted, SnapshotMade, Transfer, Unreachable
from denizen.raft.messages import MalformedMessage, Message, decode_packet, encode_packet
from denizen.raft.runtime.applier import Applier
from denizen.raft.runtime.disk_thread import LogWriter, Worker
from denizen.raft.runtime.envelope import ChangeKind, Envelope, change_of
from denizen.raft.runtime.forwarding import REPLIES, REQUESTS, Forwarding
from denizen.raft.runtime.metrics import Metrics
from denizen.raft.runtime.pending import Pending, Waiter
from denizen.raft.runtime.startup import Started
from denizen.raft.settings import Settings
from denizen.raft.transport import Transport
from denizen.raft.types import NO_NODE, Entry, EntryKind, Index, Millis, NodeId, Role, Snapshot

PACKET = b"\x01"
_EXPIRY_S = 0.2


class Driver:
    """One running node's loop. Every method runs on the event loop."""

    def __init__(
        self,
        settings: Settings,
        started: Started,
        applier: Applier,
        transport: Transport,
        failed: Callable[[BaseException], None],
    ) -> None:
        """`failed(error)` is called once when the node cannot go on."""
        self._loop = asyncio.get_running_loop()
        self._settings, self._transport = settings, transport
        self._log, self._store = started.log, started.store
        self.core, self.applier = started.core, applier
        self.metrics = Metrics()
        self.pending = Pending(settings.proposals_waiting_max)
        self.forwarding = Forwarding(self._send_frame, settings.proposals_waiting_max, settings.propose_s)
        self.applied = int(started.core.applied)
        """The last index that the state machine has applied; `core.applied` may be ahead by what is queued."""
        self._led_term = 0
        self.is_member = self.core.id in self.core.configuration.members
        """As of the newest configuration in the log."""
        self.snapshot_index = started.snapshot_index
        self.on_members: Callable[[], None] = lambda: None
        """Called when the members or their addresses changed."""
        self._failed = failed
        self._writer = LogWriter(started.log, started.store, self._persisted, failed)
        self._worker = Worker("raft snapshots", failed)
        self._inbox: list[Event] = []
        self._to_apply: deque[Entry] = deque()
        self._restoring: Snapshot | None = None
        self._bytes_since_snapshot = 0
        self._saving: list[asyncio.Future[int]] | None = None
        self._scheduled = False
        self._stopped = False
        self._cause = ""
        self.chance = asyncio.Event()
        """Wakes requests that wait for a better moment; set and cleared at once."""
        self._expiry_at = 0.0
        self._stepped_at = 0.0
        self._timer = self._loop.call_later(settings.tick_ms / 1000, self._tick)

    # What happens

    def give(self, event: Event) -> None:
        """Let the next step take this in."""
        self._inbox.append(event)
        self.wake()

    def wake(self) -> None:
        """Make sure that a step follows in this turn of the loop."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def frame(self, peer: int, frame: bytes) -> None:
        """A frame of an authenticated peer."""
        if self._stopped:
            return
        self.metrics.frames_received += 1
        kind = frame[:1]
        try:
            if kind == PACKET:
                self._inbox.extend(m for m in decode_packet(memoryview(frame)[1:]) if m.sender == peer)
            elif kind == REQUESTS:
                for data, waiter in self.forwarding.requests(peer, frame, self._loop.time()):
                    self._propose_for_peer(data, waiter)
            elif kind == REPLIES:
                self.forwarding.replies(frame)
        except MalformedMessage:
            self.metrics.frames_malformed += 1
        self.wake()

    def propose(self, data: bytes, waiter: Waiter) -> None:
        """Propose a command, or a change of the members, with the next step. Raises `Overloaded`."""
        if data[0] == Envelope.CHANGE:
            kind, node = change_of(data)
            self._inbox.append(self.pending.change(partial(self._change, kind, NodeId(node)), waiter))
        else:
            self.pending.propose(data, waiter)

    def _propose_for_peer(self, data: bytes, waiter: Waiter) -> None:
        try:
            self.propose(data, waiter)
        except Overloaded as error:
            waiter.tell(error)

    def _change(self, kind: ChangeKind, node: NodeId, key: int) -> Change | Transfer:
        if kind is ChangeKind.TRANSFER:
            matches = self.core.matches
            voters = [voter for voter in self.core.configuration.voters if voter != self.core.id]
            return Transfer(key, node or max(voters, key=lambda voter: matches.get(voter, 0), default=self.core.id))
        if kind is ChangeKind.ADD_LEARNER:
            return Change(key, add_learners=(node,))
        return Change(key, add_voters=(node,)) if kind is ChangeKind.ADD_VOTER else Change(key, remove=(node,))

    def link(self, peer: int, up: bool) -> None:
        """The link to a peer came up or broke."""
        if self._stopped:
            return
        if up:
            self._new_chance()
        else:
            self.forwarding.lost(peer)
            self.give(Unreachable(NodeId(peer)))

    def check_running(self) -> None:
        """Raise `Stopped` if the node does not run any more."""
        if self._stopped:
            raise Stopped(f"the node stopped: {self._cause}. Start it again, or use another node.", cause=self._cause)

    def halt(self, cause: str) -> None:
        """Step no more and end every wait. Then `join`."""
        self._stopped, self._cause = True, cause
        self._timer.cancel()
        self.pending.stop(cause)
        self.forwarding.stop()
        self._end_saving(Stopped(f"the node stopped: {cause}", cause=cause))
        self._new_chance()

    async def join(self) -> None:
        """Finish the threads' work and end them."""
        await asyncio.gather(self._writer.stop(), self._worker.stop())

    # The step

    def _tick(self) -> None:
        tick_s = self._settings.tick_ms / 1000
        self._timer = self._loop.call_later(tick_s, self._tick)
        now = self._loop.time()
        if now >= self._expiry_at:
            self._expiry_at = now + _EXPIRY_S
            self.pending.expire(now)
            self.forwarding.expire(now)
            self._new_chance()
        if time.monotonic() - self._stepped_at >= tick_s * 0.9:
            self.wake()

    def _new_chance(self) -> None:
        self.chance.set()
        self.chance.clear()

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        self._stepped_at = time.monotonic()
        events, self._inbox = self._inbox, []
        if self.pending.asked:
            events.extend(self.pending.events())
        self.metrics.steps += 1
        try:
            self._carry_out(self.core.step(events, Millis(int(self._stepped_at * 1000))))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, going on could lose acknowledged entries
            self._failed(error)

    def _carry_out(self, effects: Effects) -> None:
        """In the order that the core's contract asks for."""
        if effects.send:
            self._send(effects.send)
        if effects.write is not None:
            self.metrics.writes += 1
            self._writer.write(effects.write)
        if effects.leadership is not None:
            self._heard_of(effects.leadership)
            self._new_chance()
        for accepted in effects.accepted:
            self.pending.accepted(accepted)
        for refused in effects.refused:
            self.pending.refused(refused)
        if effects.restore is not None:
            self._restore(effects.restore)
        self._to_apply.extend(effects.apply)
        for ready in effects.reads:
            self.pending.read_ready(ready)
        self._apply()
        for key in effects.completed:
            self.pending.completed(key)
        if effects.configuration is not None:
            self.is_member = self.core.id in effects.configuration.members
            self.on_members()
            self._new_chance()
        self._snapshot_work(effects)
        self.forwarding.flush()

    def _heard_of(self, told: Leadership) -> None:
        """Count a leader once: a term has one at most."""
        if told.leader != NO_NODE and told.term != self._led_term:
            self._led_term = told.term
            self.metrics.leadership_changes += 1

    def _send(self, messages: Iterable[Message]) -> None:
        by_peer: dict[int, list[Message]] = {}
        for message in messages:
            by_peer.setdefault(message.to, []).append(message)
        for peer, of_peer in by_peer.items():
            self._send_frame(peer, PACKET + encode_packet(of_peer))

    def _send_frame(self, peer: int, frame: bytes) -> bool:
        self.metrics.frames_sent += 1
        return self._transport.send(peer, frame)

    def _persisted(self, number: int) -> None:
        """Called by the log's thread through the loop."""
        if not self._stopped:
            self._inbox.append(Persisted(number))
            self._turn()

    # Applying

    def _apply(self) -> None:
        """Apply committed entries, one slice; the rest in the next turn."""
        queue, pending, apply = self._to_apply, self.pending, self.applier.apply
        if self._restoring is not None:
            return
        until = time.monotonic() + limits.apply_slice_ms / 1000
        for count in range(1, len(queue) + 1):
            entry = queue.popleft()
            outcome = apply(entry) if entry.kind is EntryKind.COMMAND else None
            self.applied = entry.index
            self._bytes_since_snapshot += len(entry.data)
            pending.applied(entry.index, entry.term, outcome)
            self.metrics.entries_applied += 1
            if count % limits.apply_slice_entries == 0 and time.monotonic() >= until:
                break
        self.metrics.reads += pending.answer_reads(self.applied)
        if self.applier.addresses_changed:
            self.applier.addresses_changed = False
            self.on_members()
        settings = self._settings
        if (
            self.applied - self.snapshot_index >= settings.snapshot_entries
            or self._bytes_since_snapshot >= settings.snapshot_bytes
        ):
            self._save_snapshot()
        if queue:
            self._loop.call_soon(self._apply_more)

    def _apply_more(self) -> None:
        if self._stopped:
            return
        try:
            self._apply()
            self.forwarding.flush()
        except Exception as error:  # noqa: BLE001 - a state that is not as the log says must not go on
            self._failed(error)

    # Snapshots

    def snapshot(self) -> "asyncio.Future[int]":
        """Make a snapshot now (or wait for the one being made); its index."""
        future = self._loop.create_future()
        if self.applied == self.snapshot_index:
            future.set_result(self.applied)
            return future
        self._save_snapshot()
        if self._saving is not None:
            self._saving.append(future)
        else:
            future.set_exception(ChangeRefused("a snapshot of the leader is being restored; try again"))
        return future

    def _save_snapshot(self) -> None:
        if self._saving is not None or self._restoring is not None:
            return
        self._saving = []
        self._bytes_since_snapshot = 0
        index = Index(self.applied)
        term, configuration = self.core.snapshot_basis(index)
        snapshot, parts = Snapshot(index, term, configuration), self.applier.snapshot()
        self._worker.submit(lambda: self._store.save(snapshot, parts), self._saved)

    def _saved(self, snapshot: Snapshot) -> None:
        if self._stopped:
            return
        self.metrics.snapshots_made += 1
        self.snapshot_index = max(self.snapshot_index, snapshot.index)
        self._end_saving(int(snapshot.index))
        self.give(SnapshotMade(snapshot))

    def _end_saving(self, outcome: int | Exception) -> None:
        futures, self._saving = self._saving or [], None
        for future in futures:
            if future.done():
                continue
            if isinstance(outcome, int):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    def _restore(self, snapshot: Snapshot) -> None:
        """Read the leader's snapshot in the thread, then let it replace the state; entries wait meanwhile."""
        self._restoring = snapshot
        self._to_apply.clear()
        self._worker.submit(lambda: self._read_snapshot(snapshot), lambda data: self._restored(snapshot, data))

    def _read_snapshot(self, snapshot: Snapshot) -> bytes | None:
        """In the thread: the data, None when a newer one replaced it already."""
        try:
            return self._store.read(snapshot)
        except LogDamaged:
            if max(self._store.indexes(), default=0) > snapshot.index:
                return None
            raise

    def _restored(self, snapshot: Snapshot, data: bytes | None) -> None:
        if self._stopped or self._restoring is not snapshot or data is None:
            return  # a newer one follows
        try:
            self.applier.restore(data)
        except Exception as error:  # noqa: BLE001 - the state is in pieces now
            self._failed(error)
            return
        self.metrics.snapshots_restored += 1
        self.applied = self.snapshot_index = int(snapshot.index)
        self.pending.skipped(snapshot.index)
        self._restoring = None
        self._apply_more()

    def _snapshot_work(self, effects: Effects) -> None:
        """Read and write chunks in the thread; forget what snapshots stand for."""
        for read in effects.read_chunks:
            self._worker.submit(partial(self._read_chunk, read), self.give)
        for chunk in effects.write_chunks:
            self._worker.submit(partial(self._write_chunk, chunk), self.give)
        if effects.compact is not None:
            self._writer.compact(effects.compact)

    def _read_chunk(self, read: ReadChunk) -> ChunkRead:
        found = self._store.read_chunk(read.snapshot, read.offset, read.bytes_max)
        data, last = found or (None, False)
        return ChunkRead(read.to, read.snapshot, read.offset, data, last)

    def _write_chunk(self, chunk: WriteChunk) -> ChunkWritten:
        stored, complete = self._store.write_chunk(chunk.snapshot, chunk.offset, chunk.data, chunk.last)
        return ChunkWritten(chunk.sender, chunk.snapshot, stored, complete)

    # What it looks like

    def totals(self) -> Metrics:
        """The counters, with those of the parts filled in."""
        metrics = self.metrics
        metrics.log_syncs, metrics.log_bytes = self._log.syncs, self._log.bytes_written
        metrics.frames_dropped, metrics.connections_refused = self._transport.dropped, self._transport.refused
        metrics.outcomes_unknown = self.pending.unknown
        return metrics

    @property
    def role(self) -> str:
        """leader, follower, candidate, pre_candidate, learner or outsider."""
        core = self.core
        if core.role is Role.FOLLOWER and core.id not in core.configuration.electors:
            return "learner" if core.id in core.configuration.learners else "outsider"
        return self.core.role.name.lower()
