"""Clients: they propose through whichever node they believe in, repeat what got no answer, and read.

A client has one request at a time, numbered; a repeated one is the same command, so the state machine applies it once.
A request is answered when the node it was sent to applies its entry. What clients were told is what the checkers hold
the cluster to.
"""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from denizen.raft.effects import Accepted, Effects
from denizen.raft.events import Propose, Read
from denizen.raft.types import NO_NODE, Entry, Index, NodeId

if TYPE_CHECKING:
    from denizen.raft.sim.node import SimNode
    from denizen.raft.sim.simulation import Simulation

PATIENCE_US = 120_000


@dataclass(slots=True)
class Client:
    """One client and what it waits for."""

    id: int
    number: int = 0
    command: bytes | None = None
    believed: NodeId = NO_NODE
    attempt: int = 0


@dataclass(slots=True)
class Waiting:
    """A key that a node was given: for which client and attempt, and for a read, what it must see at least."""

    client: Client
    attempt: int
    floor: Index | None = None


class Clients:
    """All clients of a run."""

    def __init__(self, sim: "Simulation", count: int, rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self._key = 0
        self._keys: dict[tuple[NodeId, int], Waiting] = {}
        self._places: dict[tuple[NodeId, Index], tuple[Accepted, Waiting]] = {}
        self.clients = [Client(number) for number in range(1, count + 1)]
        self.acknowledged = 0
        self.reads = 0
        self.stopped = False
        for client in self.clients:
            sim.at(rng.randrange(sim.options.think_us), self._think, client)

    def _think(self, client: Client) -> None:
        """Begin a request or repeat it, and sometimes read."""
        if self.stopped:
            return
        client.attempt += 1
        if client.command is None:
            client.number += 1
            client.command = self._sim.workload.command(self._rng, client.id, client.number)
        if self._rng.random() < 0.3:
            self._read(client)
        self._propose(client)

    def _node(self, client: Client) -> "SimNode":
        if client.believed == NO_NODE or self._rng.random() < 0.1:
            client.believed = self._rng.choice(list(self._sim.nodes))
        return self._sim.nodes[client.believed]

    def _propose(self, client: Client) -> None:
        node, key = self._node(client), self._new_key()
        if client.command is not None:
            self._keys[node.id, key] = Waiting(client, client.attempt)
            node.receive(Propose(key, [client.command]))
        self._sim.at(self._sim.now + PATIENCE_US, self._impatient, client, client.attempt)

    def _read(self, client: Client) -> None:
        node, key = self._sim.nodes[self._rng.choice(list(self._sim.nodes))], self._new_key()
        self._keys[node.id, key] = Waiting(client, client.attempt, self._sim.watch.acknowledged_index)
        node.receive(Read(key))

    def _new_key(self) -> int:
        self._key += 1
        return self._key

    def _impatient(self, client: Client, attempt: int) -> None:
        """No answer: the outcome is unknown, try again elsewhere."""
        if client.attempt == attempt:
            client.believed = NO_NODE
            self._think(client)

    def _again(self, client: Client, attempt: int, after: int) -> None:
        if client.attempt == attempt:
            self._sim.at(self._sim.now + after, self._retry, client, attempt)

    def _retry(self, client: Client, attempt: int) -> None:
        if client.attempt == attempt:
            self._think(client)

    def node_lost(self, node: NodeId) -> None:
        """A node crashed: whoever waits for it hears nothing."""
        self._keys = {place: waiting for place, waiting in self._keys.items() if place[0] != node}
        self._places = {place: waiting for place, waiting in self._places.items() if place[0] != node}

    def answered(self, node: "SimNode", effects: Effects) -> None:
        """What a step said about keys."""
        for accepted in effects.accepted:
            waiting = self._keys.pop((node.id, accepted.key), None)
            if waiting is not None:
                self._places[node.id, accepted.first_index] = (accepted, waiting)
        for refused in effects.refused:
            waiting = self._keys.pop((node.id, refused.key), None)
            if waiting is not None and waiting.floor is None:
                waiting.client.believed = refused.leader
                self._again(waiting.client, waiting.attempt, 10_000)
        for ready in effects.reads:
            waiting = self._keys.pop((node.id, ready.key), None)
            if waiting is not None and waiting.floor is not None:
                self.reads += 1
                self._sim.watch.read(node, ready, waiting.floor)

    def applied(self, node: NodeId, entry: Entry, result: Any) -> None:
        """A node applied an entry: if a client waits for it there, it is answered."""
        place = self._places.pop((node, entry.index), None)
        if place is None:
            return
        accepted, waiting = place
        client = waiting.client
        if accepted.term != entry.term:
            self._again(client, waiting.attempt, 1_000)
            return
        self._sim.watch.acknowledged(entry, result)
        if client.attempt == waiting.attempt:
            self.acknowledged += 1
            client.command = None
            self._again(client, waiting.attempt, self._rng.randrange(self._sim.options.think_us))
