"""A few cores on a bench: no time passes, no message moves and no disk syncs unless the test says so.

`Lab` keeps the caller's side of the core's contract with the simulation's disk under each node. Everything a step leads
to is also written to `lab.lines`, in words; the golden transcripts compare those.
"""

from collections.abc import Callable
from random import Random

from msgspec import msgpack

from denizen.raft.core import Core
from denizen.raft.effects import Accepted, Effects, Refused
from denizen.raft.events import (
    Change,
    ChunkRead,
    ChunkWritten,
    Event,
    Persisted,
    Propose,
    Read,
    SnapshotMade,
    Transfer,
)
from denizen.raft.messages import Append, AppendReply, InstallSnapshot, Message, decode_packet, encode_packet
from denizen.raft.sim.disk import Disk
from denizen.raft.types import Configuration, Entry, EntryKind, HardState, Role, Settings, Snapshot

ELECTION_MS = 100


class Patient(Random):
    """Draws the longest time-outs, so that nobody but who is meant to stands for election."""

    def randrange(self, stop):
        return stop - 1


class LosesAll(Random):
    """A disk that loses everything that is not synced, when it crashes."""

    def randint(self, a, b):
        return a


class LabNode:
    """One node: its core, its disk, and what it applied."""

    def __init__(self, lab, node, founding):
        self.lab, self.id = lab, node
        self.disk = Disk(founding, LosesAll(0))
        self.holds_disk = False
        """Writes are taken in but not synced until `Lab.sync`."""
        self.lives = 0
        self.ahead = 0
        """How much its clock is ahead of the others': a node whose clock jumps ahead times out alone."""
        self.start()

    def start(self):
        self.lives += 1
        self.up = True
        self.written = self.synced = 0
        restored = self.disk.restored()
        self.core = Core(self.lab.settings(self.id), restored, Patient(0), self.clock)
        self.applied: list[bytes] = []
        if restored.snapshot is not None:
            self.applied = msgpack.decode(self.disk.snapshots[restored.snapshot])

    @property
    def clock(self) -> int:
        """Its monotonic clock."""
        return self.lab.now + self.ahead

    @property
    def log(self) -> list[tuple[int, int]]:
        """Index and term of every entry it holds."""
        core = self.core
        return [(i, core.term_at(i)) for i in range(core.first_index, core.last_index + 1)]


class Lab:
    """The bench."""

    def __init__(self, voters=(1, 2, 3), others=(), **settings):
        self.now = 1_000
        self._settings = {"election_ms": ELECTION_MS, "heartbeat_ms": 30, "lease_margin_ms": 10, **settings}
        founding = Configuration(voters=tuple(voters))
        self.lines: list[str] = []
        self.wire: list[Message] = []
        self.keys = 0
        self.accepted: dict[int, Accepted] = {}
        self.refused: dict[int, Refused] = {}
        self.reads: dict[int, int] = {}
        self.completed: list[int] = []
        self.nodes = {node: LabNode(self, node, founding) for node in voters}
        self.nodes |= {node: LabNode(self, node, Configuration()) for node in others}

    def settings(self, node) -> Settings:
        return Settings(id=node, **self._settings)

    def __getitem__(self, node) -> Core:
        return self.nodes[node].core

    # What a test does

    def step(self, node, *events: Event) -> Effects:
        """Give events to a node and carry out what follows."""
        lab_node = self.nodes[node]
        effects = lab_node.core.step(events, lab_node.clock)
        self._note(node, effects)
        self.wire.extend(effects.send)
        self._answer(effects)
        if effects.compact is not None:
            lab_node.disk.compact(effects.compact)
        self._apply(lab_node, effects)
        more: list[Event] = []
        for chunk in effects.read_chunks:
            data = lab_node.disk.snapshots.get(chunk.snapshot)
            part = data[chunk.offset : chunk.offset + chunk.bytes_max] if data is not None else None
            last = data is not None and chunk.offset + chunk.bytes_max >= len(data)
            more.append(ChunkRead(chunk.to, chunk.snapshot, chunk.offset, part, last))
        for received in effects.write_chunks:
            stored, complete = lab_node.disk.stage(received)
            more.append(ChunkWritten(received.sender, received.snapshot, stored, complete))
        if effects.write is not None:
            lab_node.disk.write(effects.write)
            lab_node.written = effects.write.number
            if not lab_node.holds_disk:
                more.append(self._synced(lab_node))
        if effects.repaired:
            lab_node.disk.repair_until = None
        if more:
            self.step(node, *more)
        return effects

    def _synced(self, lab_node):
        lab_node.disk.sync(lab_node.written)
        lab_node.synced = lab_node.written
        return Persisted(lab_node.written)

    def sync(self, node):
        """Let the disk of a node that holds it finish what was written."""
        self.step(node, self._synced(self.nodes[node]))

    def tick(self, *nodes, ms=0):
        """Let time pass, and let these nodes (or all) notice."""
        self.now += ms
        for node in nodes or list(self.nodes):
            if self.nodes[node].up:
                self.step(node)

    def deliver(self, which: Callable[[Message], bool] = lambda message: True) -> int:
        """Deliver the messages on the wire that match, as they are now; later ones wait."""
        chosen = [message for message in self.wire if which(message)]
        self.wire = [message for message in self.wire if not which(message)]
        for message in decode_packet(encode_packet(chosen)):
            if self.nodes[message.to].up:
                self.step(message.to, message)
        return len(chosen)

    def settle(self, *nodes, rounds=200):
        """Deliver everything (among these nodes only) until nothing is on the wire; what goes elsewhere is lost."""
        inside = set(nodes or self.nodes)
        for _ in range(rounds):
            self.wire = [m for m in self.wire if m.to in inside and m.sender in inside]
            if not self.wire:
                return
            self.deliver()
        raise AssertionError(f"never quiet: {self.wire[:5]}")

    def drop(self, which: Callable[[Message], bool] = lambda message: True) -> list[Message]:
        """Take messages off the wire; they are returned, to be delivered late."""
        taken = [message for message in self.wire if which(message)]
        self.wire = [message for message in self.wire if not which(message)]
        return taken

    def elect(self, node, *nodes):
        """Let this node time out alone and win, with the votes of `nodes` (default: all)."""
        self.campaign(node)
        self.settle(*(nodes or self.nodes))
        assert self[node].role is Role.LEADER, self[node].role
        return self[node]

    def campaign(self, node):
        """Let this node time out alone, when what the others promised to a leader is over."""
        for other in self.nodes.values():
            promised = other.core._state.promised_until - other.ahead
            if other.id != node and other.up and other.core.role is not Role.LEADER:
                self.now = max(self.now, promised)
        lab_node = self.nodes[node]
        lab_node.ahead += 3 * ELECTION_MS
        self.step(node)

    def beat(self, node, *nodes, times=1):
        """Let a leader send heartbeats and everybody (of these nodes) answer."""
        for _ in range(times):
            self.now += 30
            self.step(node)
            self.settle(*nodes)

    def propose(self, node, *commands: bytes) -> int:
        self.keys += 1
        self.step(node, Propose(self.keys, list(commands)))
        return self.keys

    def write(self, node, *commands: bytes, among=()) -> int:
        """Propose and let it be replicated."""
        key = self.propose(node, *commands)
        self.settle(*among)
        return key

    def read(self, node) -> int:
        self.keys += 1
        self.step(node, Read(self.keys))
        return self.keys

    def change(self, node, **change) -> int:
        self.keys += 1
        self.step(node, Change(self.keys, **change))
        return self.keys

    def transfer(self, node, to) -> int:
        self.keys += 1
        self.step(node, Transfer(self.keys, to))
        return self.keys

    def make_snapshot(self, node) -> Snapshot:
        """Make a snapshot of what the node has applied, durably."""
        lab_node = self.nodes[node]
        index = lab_node.core.applied
        data = msgpack.encode(lab_node.applied)
        snapshot = Snapshot(index, *lab_node.core.snapshot_basis(index), len(data), b"")
        lab_node.disk.made(snapshot, data)
        self.step(node, SnapshotMade(snapshot))
        return snapshot

    def crash(self, *nodes):
        for node in nodes:
            self.nodes[node].up = False
            self.nodes[node].disk.crash()
            self.wire = [message for message in self.wire if message.to != node]

    def restart(self, *nodes):
        """Crash and start again."""
        self.crash(*nodes)
        for node in nodes:
            self.nodes[node].start()

    def preset(self, node, terms, term=None):
        """Restart a node with a log of these terms, as the figures of the paper draw them."""
        disk = self.nodes[node].disk
        self.crash(node)
        disk.entries = [Entry(i, t, EntryKind.COMMAND, f"{i}.{t}".encode()) for i, t in enumerate(terms, 1)]
        disk.hard_state = HardState(max(terms, default=0) if term is None else term, 0)
        self.nodes[node].start()

    # What follows

    def _apply(self, lab_node, effects):
        if effects.restore is not None:
            lab_node.applied = msgpack.decode(lab_node.disk.snapshots[effects.restore])
        lab_node.applied.extend(entry.data for entry in effects.apply if entry.kind is EntryKind.COMMAND)

    def _answer(self, effects):
        self.accepted |= {accepted.key: accepted for accepted in effects.accepted}
        self.refused |= {refused.key: refused for refused in effects.refused}
        self.reads |= {ready.key: ready.index for ready in effects.reads}
        self.completed += effects.completed

    def _note(self, node, effects):
        say = self.lines.append
        if effects.leadership is not None:
            told = effects.leadership
            say(f"n{node} is {told.role.name.lower()} in t{told.term}, leader {told.leader or 'unknown'}")
        if effects.write is not None:
            say(f"n{node} writes {_describe_write(effects.write)}")
        for message in effects.send:
            say(f"n{node} -> n{message.to} {describe(message)}")
        if effects.restore is not None:
            say(f"n{node} restores the snapshot at {effects.restore.index}")
        if effects.apply:
            say(f"n{node} applies {' '.join(describe_entry(entry) for entry in effects.apply)}")
        for accepted in effects.accepted:
            say(f"n{node} accepts {accepted.key} at {accepted.first_index}/t{accepted.term}")
        for refused in effects.refused:
            say(f"n{node} refuses {refused.key}: {refused.reason}, leader {refused.leader or 'unknown'}")
        for ready in effects.reads:
            say(f"n{node} may read {ready.key} at {ready.index}")
        for key in effects.completed:
            say(f"n{node} has completed {key}")
        if effects.repaired:
            say(f"n{node} is repaired")


def _describe_write(write) -> str:
    parts = [f"snapshot {write.snapshot.index}"] if write.snapshot is not None else []
    if write.hard_state is not None:
        parts.append(f"term {write.hard_state.term} vote {write.hard_state.vote or 'none'}")
    return ", ".join([*parts, " ".join(describe_entry(entry) for entry in write.entries)] if write.entries else parts)


def describe_entry(entry: Entry) -> str:
    """An entry in a word."""
    what = entry.data.decode() if entry.kind is EntryKind.COMMAND else entry.kind.name.lower()
    return f"{entry.index}/t{entry.term}:{what}"


def describe(message: Message) -> str:
    """A message in a line."""
    if isinstance(message, Append):
        entries = " ".join(describe_entry(entry) for entry in message.entries) or "-"
        after = f"{message.prev_index}/t{message.prev_term}"
        return f"Append t{message.term} r{message.round} after {after} [{entries}] commit {message.commit}"
    if isinstance(message, AppendReply):
        conflict = ""
        if message.conflict:
            runs = " ".join(f"t{run.term}..{run.last_index}" for run in message.runs)
            conflict = f" conflict {message.conflict} runs [{runs}]"
        return f"AppendReply t{message.term} r{message.round} match {message.match}{conflict}"
    if isinstance(message, InstallSnapshot):
        end = f"{message.offset}..{message.offset + len(message.data)}{' last' if message.last else ''}"
        return f"InstallSnapshot t{message.term} at {message.snapshot.index} bytes {end}"
    names = [name for name in message.__struct_fields__[3:] if name != "ticket"]
    values = " ".join(f"{name} {getattr(message, name)}" for name in names)
    return f"{type(message).__name__} t{message.term} {values}".rstrip()
