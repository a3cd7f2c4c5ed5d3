"""One simulated node: the real core, a disk, a state machine, and a caller that keeps the core's contract.

Inputs gather in an inbox and are taken in together, as a busy process does. A node is up, paused (it lives, but its
process stands still, while its inbox fills) or down.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from denizen.raft.core import Core
from denizen.raft.effects import Effects, ReadChunk
from denizen.raft.events import ChunkRead, ChunkWritten, Event, Persisted, SnapshotMade
from denizen.raft.sim.disk import Disk
from denizen.raft.sim.machines import Machine
from denizen.raft.sim.randomness import stream
from denizen.raft.types import Configuration, EntryKind, Index, Millis, NodeId, Role, Snapshot

if TYPE_CHECKING:
    from denizen.raft.sim.simulation import Simulation


class SimNode:
    """A node and everything of it that a crash does or does not take."""

    def __init__(
        self, sim: "Simulation", node: NodeId, founding: Configuration, machine: Callable[[], Machine]
    ) -> None:
        self.sim = sim
        self.id = node
        self.disk = Disk(founding, stream(sim.seed, f"disk {node}"))
        self._new_machine = machine
        self.life = 0
        """How often it was started; what was scheduled for an earlier life does not happen."""
        self.up = False
        self.paused_until = 0
        self.inbox: list[Event] = []
        self._wake_at = 0
        self._stepping_at = -1
        self._clock_offset = stream(sim.seed, f"clock {node}").randrange(1_000_000)
        self.slow = 1
        self._syncing = False
        self._written = 0
        self._snapshotting = False
        self.start()

    def start(self) -> None:
        """Begin a life with what the disk holds."""
        self.life += 1
        self.up = True
        self.inbox = []
        self._stepping_at = -1
        self._syncing = self._snapshotting = False
        self._written = 0
        settings = self.sim.options.settings(self.id)
        rng = stream(self.sim.seed, f"core {self.id} {self.life}")
        restored = self.disk.restored()
        self.core = Core(settings, restored, rng, self._clock())
        self.machine = self._new_machine()
        self.applied = Index(0)
        if restored.snapshot is not None:
            self.machine.restore(self.disk.snapshots[restored.snapshot])
            self.applied = restored.snapshot.index
        self.sim.watch.started(self)
        self._wake_at = 0
        self._wake_again()

    def crash(self) -> None:
        """Lose everything that is not durable."""
        self.up = False
        self.paused_until = 0
        self.slow = 1
        self.life += 1
        self.disk.crash()
        self.sim.clients.node_lost(self.id)

    def receive(self, *events: Event) -> None:
        """Put events into the inbox; a little later the process takes them in."""
        if not self.up:
            return
        self.inbox.extend(events)
        at = max(self.sim.now + 20, self.paused_until)
        if self._stepping_at < 0:
            self._stepping_at = at
            self._later(at, self._take_in)

    def _take_in(self) -> None:
        if self.sim.now < self.paused_until:
            self._later(self.paused_until, self._take_in)
            return
        self._stepping_at = -1
        events, self.inbox = self.inbox, []
        self._step(events)

    def _tick(self) -> None:
        if self.sim.now < self.paused_until:
            self._later(self.paused_until, self._tick)
        elif self._clock() >= self._wake_at:
            self._wake_at = 0
            events, self.inbox = self.inbox, []
            self._step(events)

    def _step(self, events: list[Event]) -> None:
        sim = self.sim
        sim.trace.step(sim.now, self.id, events)
        effects = self.core.step(events, self._clock())
        sim.trace.effects(sim.now, self.id, effects)
        sim.watch.stepped(self, effects)
        sim.nemesis.stepped(self, effects)
        self._carry_out(effects)
        self._wake_again()

    def _carry_out(self, effects: Effects) -> None:
        """What the contract at the top of the core asks for."""
        if effects.write is not None:
            self.disk.write(effects.write)
            self._written = effects.write.number
            if not self._syncing:
                self._begin_sync()
        if effects.repaired:
            self.disk.repair_until = None
        for message in effects.send:
            self.sim.transmit(message)
        self._apply(effects)
        for chunk in effects.read_chunks:
            self._read_chunk(chunk)
        for received in effects.write_chunks:
            stored, complete = self.disk.stage(received)
            done = ChunkWritten(received.sender, received.snapshot, stored, complete)
            self._later(self.sim.now + self.sim.sync_time(self), self.receive, done)
        if effects.compact is not None:
            self.disk.compact(effects.compact)

    def _apply(self, effects: Effects) -> None:
        if effects.restore is not None:
            self.machine = self._new_machine()
            self.machine.restore(self.disk.snapshots[effects.restore])
            self.applied = effects.restore.index
        for entry in effects.apply:
            result = self.machine.apply(entry.index, entry.data) if entry.kind is EntryKind.COMMAND else None
            self.applied = entry.index
            self.sim.clients.applied(self.id, entry, result)
        self.sim.clients.answered(self, effects)
        behind = self.applied - (self.core.snapshot.index if self.core.snapshot is not None else 0)
        if behind >= self.sim.options.snapshot_every and not self._snapshotting:
            self._make_snapshot()

    def _begin_sync(self) -> None:
        self._syncing = True
        self._later(self.sim.now + self.sim.sync_time(self), self._synced, self._written)

    def _synced(self, number: int) -> None:
        self._syncing = False
        self.disk.sync(number)
        self.receive(Persisted(number))
        if self._written > number:
            self._begin_sync()

    def _make_snapshot(self) -> None:
        term, configuration = self.core.snapshot_basis(self.applied)
        data = self.machine.snapshot()
        digest = blake2b(data, digest_size=8).digest()
        snapshot = Snapshot(self.applied, term, configuration, len(data), digest)
        self._snapshotting = True
        self._later(self.sim.now + 2 * self.sim.sync_time(self), self._snapshot_durable, snapshot, data)

    def _snapshot_durable(self, snapshot: Snapshot, data: bytes) -> None:
        self._snapshotting = False
        if self.core.snapshot is None or snapshot.index > self.core.snapshot.index:
            self.disk.made(snapshot, data)
            self.receive(SnapshotMade(snapshot))

    def _read_chunk(self, chunk: ReadChunk) -> None:
        data = self.disk.snapshots.get(chunk.snapshot)
        part = data[chunk.offset : chunk.offset + chunk.bytes_max] if data is not None else None
        last = data is not None and chunk.offset + chunk.bytes_max >= len(data)
        self.receive(ChunkRead(chunk.to, chunk.snapshot, chunk.offset, part, last))

    def _clock(self) -> Millis:
        return Millis((self.sim.now + self._clock_offset) // 1_000)

    def _wake_again(self) -> None:
        wanted = self.core.wake_at
        if self._wake_at == 0 or wanted < self._wake_at:
            self._wake_at = wanted
            self._later(max(wanted * 1_000 - self._clock_offset, self.sim.now + 1), self._tick)

    def _later(self, at: int, action: Callable[..., None], *arguments: object) -> None:
        self.sim.at(at, self._in_this_life, self.life, action, arguments)

    def _in_this_life(self, life: int, action: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if life == self.life and self.up:
            action(*arguments)

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self.up and self.core.role is Role.LEADER
