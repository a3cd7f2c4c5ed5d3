"""What goes wrong in a run: faults, and orders to the cluster at bad moments, drawn from the seed."""

from random import Random
from typing import TYPE_CHECKING

from denizen.raft.effects import Effects
from denizen.raft.events import Change, Transfer, Unreachable
from denizen.raft.types import EntryKind, NodeId, Role

if TYPE_CHECKING:
    from denizen.raft.sim.node import SimNode
    from denizen.raft.sim.simulation import Simulation

ORDER_KEY = 1 << 40


class Nemesis:
    """Chooses a fault every now and then until it is told to stop."""

    def __init__(self, sim: "Simulation", rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self._kinds = [kind for kind, weight in sim.options.faults.items() for _ in range(weight)]
        self._orders = ORDER_KEY
        self.damaged: set[NodeId] = set()
        if self._kinds:
            self._plan_next()

    def _plan_next(self) -> None:
        after = int(self._rng.expovariate(1 / self._sim.options.fault_every_us)) + 1_000
        if self._sim.now + after < self._sim.options.chaos_us:
            self._sim.at(self._sim.now + after, self._strike)

    def _strike(self) -> None:
        getattr(self, f"_{self._rng.choice(self._kinds)}")()
        self._plan_next()

    def stepped(self, node: "SimNode", effects: Effects) -> None:
        """See whether a step was a delicate moment, and sometimes strike right after it."""
        options = self._sim.options
        if not options.delicate or self._sim.network.calm or not delicate(node, effects):
            return
        if self._rng.random() < options.delicate:
            after = self._rng.randrange(self._rng.choice((500, 5_000, options.delay_us)))
            self._sim.at(self._sim.now + after, self._strike_at, node, node.life)

    def _strike_at(self, node: "SimNode", life: int) -> None:
        if node.life != life or not node.up or self._sim.network.calm:
            return
        choice = self._rng.random()
        if choice < 0.4:
            self._crash_node(node)
        elif choice < 0.7:
            self._cut_off(node)
        else:
            self._thin_out(node)

    def _note(self, text: str) -> None:
        self._sim.trace.note(self._sim.now, text)

    def _any_up(self) -> "SimNode | None":
        """A running node, the leader more often than others."""
        up = [node for node in self._sim.nodes.values() if node.up]
        leaders = [node for node in up if node.leads]
        if leaders and self._rng.random() < 0.4:
            return self._rng.choice(leaders)
        return self._rng.choice(up) if up else None

    def _crash(self) -> None:
        node = self._any_up()
        if node is not None:
            self._crash_node(node)

    def _crash_node(self, node: "SimNode") -> None:
        self._note(f"n{node.id} crashes")
        node.crash()
        self._sim.at(self._sim.now + self._rng.choice(self._sim.options.restarts_us), self._start, node)
        for other in self._sim.nodes.values():
            if self._rng.random() < 0.5:
                other.receive(Unreachable(node.id))

    def _start(self, node: "SimNode") -> None:
        if not node.up:
            self._note(f"n{node.id} starts")
            node.start()

    def _crash_all(self) -> None:
        for node in list(self._sim.nodes.values()):
            if node.up:
                self._crash_node(node)

    def _partition(self) -> None:
        nodes = list(self._sim.nodes)
        self._rng.shuffle(nodes)
        cut = self._rng.randint(1, max(1, len(nodes) // 2))
        self._note(f"partition {sorted(nodes[:cut])} | {sorted(nodes[cut:])}")
        self._sim.network.partition(nodes[:cut], nodes[cut:])

    def _one_way(self) -> None:
        nodes = list(self._sim.nodes)
        self._rng.shuffle(nodes)
        self._note(f"nothing passes from n{nodes[0]} to {sorted(nodes[1:])}")
        self._sim.network.partition(nodes[:1], nodes[1:], one_way=True)

    def _isolate_leader(self) -> None:
        for node in self._sim.nodes.values():
            if node.leads:
                self._cut_off(node)

    def _cut_off(self, node: "SimNode") -> None:
        self._note(f"n{node.id} is cut off")
        self._sim.network.partition([node.id], [other for other in self._sim.nodes if other != node.id])

    def _thin_out(self, node: "SimNode") -> None:
        """Let a node reach only few others, so that what it replicates stays with some."""
        others = [other for other in self._sim.nodes if other != node.id]
        self._rng.shuffle(others)
        unreached = sorted(others[self._rng.randint(1, 2) :])
        self._note(f"nothing passes from n{node.id} to {unreached}")
        self._sim.network.partition([node.id], unreached, one_way=True)

    def _heal(self) -> None:
        self._note("all links work")
        self._sim.network.cut.clear()

    def _pause(self) -> None:
        node = self._any_up()
        if node is not None:
            node.paused_until = self._sim.now + self._rng.choice((30_000, 200_000, 600_000))
            self._note(f"n{node.id} stands still until {node.paused_until / 1000:.0f}")

    def _slow_disk(self) -> None:
        node = self._any_up()
        if node is not None:
            node.slow = self._rng.choice((1, 20))
            self._note(f"n{node.id} syncs {node.slow} times slower")

    def _damage(self) -> None:
        """Crash a node and rot its log, but never more than a minority of them at a time."""
        self.damaged = {node for node in self.damaged if self._sim.nodes[node].disk.repair_until is not None}
        node = self._any_up()
        founders = self._sim.options.founders
        if node is None or node.id > founders or len(self.damaged | {node.id}) > (founders - 1) // 2:
            return
        self._crash_node(node)
        if node.disk.rot():
            self.damaged.add(node.id)
            self._note(f"the log of n{node.id} is damaged, {node.disk.repair_until} was durable")

    def _transfer(self) -> None:
        target = self._rng.choice(list(self._sim.nodes))
        for node in self._sim.nodes.values():
            if node.leads:
                self._orders += 1
                self._note(f"n{node.id} is told to hand over to n{target}")
                node.receive(Transfer(self._orders, target))

    def _change(self) -> None:
        for node in self._sim.nodes.values():
            if node.leads:
                self._orders += 1
                change = self._draw_change(node)
                self._note(f"n{node.id} is told to change members: {change}")
                node.receive(change)

    def _draw_change(self, node: "SimNode") -> Change:
        """Replace, add, demote or remove some members; most of these are possible."""
        current = node.core.configuration
        voters = list(current.voters)
        others = [other for other in self._sim.nodes if other not in voters]
        self._rng.shuffle(voters)
        self._rng.shuffle(others)
        leaving = voters[: self._rng.randint(0, len(voters) // 2)]
        joining = others[: self._rng.randint(0, 2)]
        if self._rng.random() < 0.3:
            return Change(self._orders, add_voters=tuple(joining), demote=tuple(leaving))
        return Change(self._orders, add_voters=tuple(joining), remove=tuple(leaving))


def delicate(node: "SimNode", effects: Effects) -> bool:
    """Whether this is one of the moments that matter: a vote, an election, the first commit of a term, a snapshot
    adopted.
    """
    write, told = effects.write, effects.leadership
    if told is not None and told.role is Role.LEADER:
        return True
    if (
        not node.sim.options.leaders_only
        and write is not None
        and (write.hard_state is not None or write.snapshot is not None)
    ):
        return True
    return node.leads and any(entry.kind is EntryKind.NOTHING for entry in effects.apply)
