"""A run: a queue of things that happen in virtual time, and what happens in them.

First there is chaos, then all faults stop: everybody runs, all links work. Then the cluster has to elect a leader,
commit, and bring every member to the same state within a bounded time. Any step that breaks a rule ends the run with a
`Violation`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from denizen.raft.messages import Message
from denizen.raft.sim.clients import Clients
from denizen.raft.sim.machines import AddWorkload, Counters, Machine, Workload
from denizen.raft.sim.nemesis import Nemesis
from denizen.raft.sim.network import Network
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.options import Options
from denizen.raft.sim.randomness import stream
from denizen.raft.sim.trace import Trace
from denizen.raft.sim.violation import Violation
from denizen.raft.sim.watch import Watch
from denizen.raft.types import Configuration, NodeId


@dataclass(frozen=True, slots=True)
class Report:
    """What a run amounted to."""

    seed: int
    checksum: int
    events: int
    elections: int
    committed: int
    acknowledged: int
    reads: int


class Simulation:
    """One run. Give `options` for a scenario, or leave them to the seed."""

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        *,
        machine: Callable[[], Machine] = Counters,
        workload: Callable[[], Workload] = AddWorkload,
        keep_lines: bool = False,
    ) -> None:
        self.seed = seed
        self.options = options or Options.drawn(stream(seed, "options"))
        self.now = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self.trace = Trace(keep=keep_lines)
        self.workload = workload()
        self.watch = Watch(self.workload)
        self.network = Network(self.options, stream(seed, "network"))
        self._sync_rng = stream(seed, "sync")
        self.clients = Clients(self, self.options.clients, stream(seed, "clients"))
        founders = tuple(NodeId(number) for number in range(1, self.options.founders + 1))
        self.nemesis = Nemesis(self, stream(seed, "nemesis"))
        self.nodes: dict[NodeId, SimNode] = {}
        for number in range(1, self.options.founders + self.options.spares + 1):
            node = NodeId(number)
            founding = Configuration(voters=founders) if node in founders else Configuration()
            self.nodes[node] = SimNode(self, node, founding, machine)

    def at(self, time: int, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen at a moment."""
        self._sequence += 1
        heappush(self._queue, (time, self._sequence, action, arguments))

    def transmit(self, message: Message) -> None:
        """Give a message to the network."""
        for delay in self.network.arrivals(message):
            self.at(self.now + delay, self._arrive, message)

    def _arrive(self, message: Message) -> None:
        if message.to in self.nodes and self.network.open(message):
            self.nodes[message.to].receive(message)

    def sync_time(self, node: SimNode) -> int:
        """How long the next fsync of a node takes."""
        return 50 + int(self._sync_rng.random() * self.options.sync_us * node.slow)

    def run(self) -> Report:
        """Play the run to its end. Raises `Violation`."""
        self.run_until(self.options.chaos_us)
        self._stop_faults()
        enough = self.clients.acknowledged + 3
        self._wait_for("three commands are acknowledged", lambda: self.clients.acknowledged >= enough)
        self.clients.stopped = True
        self._wait_for("all members have the same state", self._settled)
        self.watch.at_end(self._members())
        return Report(
            seed=self.seed,
            checksum=self.trace.checksum,
            events=self.trace.events,
            elections=self.watch.elections,
            committed=len(self.watch.ledger.entries),
            acknowledged=self.clients.acknowledged,
            reads=self.clients.reads,
        )

    def run_until(self, time: int) -> None:
        """Let everything happen that is due before `time`."""
        queue = self._queue
        while queue and queue[0][0] < time:
            self.now, _, action, arguments = heappop(queue)
            action(*arguments)
        self.now = time

    def _stop_faults(self) -> None:
        self.trace.note(self.now, "faults stop")
        self.network.cut.clear()
        self.network.calm = True
        for node in self.nodes.values():
            node.slow = 1
            node.paused_until = 0
            if not node.up:
                node.start()

    def _members(self) -> list[SimNode]:
        """The members of the configuration that the newest leader has."""
        leaders = [node for node in self.nodes.values() if node.leads]
        if not leaders:
            return []
        newest = max(leaders, key=lambda node: node.core.term)
        return [self.nodes[node] for node in newest.core.configuration.members]

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = self.now + self.options.settle_us
        while not condition():
            if self.now >= deadline:
                raise Violation("progress", f"not within {self.options.settle_us / 1e6:.0f} s of calm: {what}")
            self.run_until(self.now + 20_000)

    def _settled(self) -> bool:
        """Whether every member has applied everything that was ever committed."""
        applied = {node.applied for node in self._members()}
        return applied == {len(self.watch.ledger.entries)}
