"""How executors and operators speak to the simulated Raft nodes, and how executors come and go with the leadership."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from denizen.control.commands import Command, Reply, decode_reply, encode_command
from denizen.control.executor import Executor
from denizen.control.machine import ControlMachine
from denizen.control.sim.loop import VirtualLoop
from denizen.control.sim.servers import SimMover
from denizen.control.state import ControlState
from denizen.raft.effects import Accepted, Effects
from denizen.raft.errors import NoLeader, OutcomeUnknown
from denizen.raft.events import Propose
from denizen.raft.sim.randomness import stream
from denizen.raft.types import Entry, Index, NodeId

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation
    from denizen.raft.sim.node import SimNode

PATIENCE_US = 400_000

Told = Callable[[Reply | Exception], None]


class Proposals:
    """Stands where the consensus simulation has its clients: it is told what nodes accept, refuse and apply."""

    def __init__(self, sim: "MovesSimulation") -> None:
        self._sim = sim
        self._key = 0
        self._keys: dict[tuple[NodeId, int], Told] = {}
        self._places: dict[tuple[NodeId, Index], tuple[Accepted, Told]] = {}
        self.acknowledged = 0
        self.reads = 0
        self.stopped = False

    def propose(self, node: "SimNode", command: Command, told: Told) -> None:
        """Give a node a command; `told` hears once: the reply, or why there is none."""
        self._key += 1
        key, heard = (node.id, self._key), [False]

        def once(answer: Reply | Exception) -> None:
            if not heard[0]:
                heard[0] = True
                self._keys.pop(key, None)
                told(answer)

        self._keys[key] = once
        node.receive(Propose(self._key, [encode_command(command)]))
        self._sim.at(self._sim.now + PATIENCE_US, once, OutcomeUnknown("no answer in time"))

    def answered(self, node: "SimNode", effects: Effects) -> None:
        """What a step said about keys. Its commands are applied by now, or its state was replaced."""
        for accepted in effects.accepted:
            told = self._keys.get((node.id, accepted.key))
            if told is not None:
                self._places[node.id, accepted.first_index] = (accepted, told)
        for refused in effects.refused:
            told = self._keys.get((node.id, refused.key))
            if told is not None:
                told(NoLeader(refused.reason))
        self._sim.leaders.stepped(node)

    def applied(self, node: NodeId, entry: Entry, result: Any) -> None:
        """A node applied an entry: whoever waits for it there is answered, unless the answer gets lost."""
        place = self._places.pop((node, entry.index), None)
        if place is None:
            return
        accepted, told = place
        if accepted.term != entry.term:
            told(NoLeader("another leader's command took the place"))
            return
        self._sim.watch.acknowledged(entry, result)
        self.acknowledged += 1
        if self._sim.calm or self._sim.reply_rng.random() >= self._sim.wildness.lost:
            told(decode_reply(result))

    def node_lost(self, node: NodeId) -> None:
        """A node crashed: whoever waits for it hears nothing."""
        self._keys = {key: told for key, told in self._keys.items() if key[0] != node}
        self._places = {place: told for place, told in self._places.items() if place[0] != node}
        self._sim.leaders.crashed(node)


class SimControl:
    """The `Control` port of one life of one node."""

    def __init__(self, sim: "MovesSimulation", node: "SimNode", loop: VirtualLoop) -> None:
        self._sim = sim
        self._node = node
        self._loop = loop
        self._bell = asyncio.Event()

    @property
    def state(self) -> ControlState:
        """What the node has applied."""
        machine = self._node.machine
        assert isinstance(machine, ControlMachine)  # noqa: S101 - for the type
        return machine.state

    def ring(self) -> None:
        """The state has changed."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def propose(self, command: Command) -> Reply:
        """Through the node."""
        if self._loop.dead:
            raise NoLeader("this node has crashed")
        waiting: asyncio.Future[Reply | Exception] = self._loop.create_future()

        def told(answer: Reply | Exception) -> None:
            if not self._loop.dead and not waiting.done():
                waiting.set_result(answer)

        self._sim.trace.note(self._sim.now, f"n{self._node.id} says {_text(command)}")
        self._sim.proposals.propose(self._node, command, told)
        answer = await waiting
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def changed(self, revision: int, timeout_s: float) -> ControlState:
        """When it is newer."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.state.revision <= revision and not self._loop.dead:
                    await self._bell.wait()
        except TimeoutError:
            pass
        return self.state


def _text(command: Command) -> str:
    known = {"at_ms", "plan", "map", "shards"}
    facts = {name: getattr(command, name) for name in command.__struct_fields__ if name not in known}
    return f"{type(command).__name__} {facts}"


class SimClock:
    """Virtual time, for the executor."""

    def __init__(self, sim: "MovesSimulation") -> None:
        self._sim = sim

    def now_ms(self) -> int:
        """From an arbitrary beginning."""
        return 1_000_000 + self._sim.now // 1_000

    def monotonic(self) -> float:
        """Seconds."""
        return self._sim.now / 1e6


@dataclass(slots=True)
class Working:
    """An executor at work on a node."""

    loop: VirtualLoop
    control: SimControl
    task: "asyncio.Task[None]"
    revision: int = -1
    ending: bool = False


class Leaders:
    """Starts an executor on a node that leads, and ends it some time after it does not: two may run at once."""

    def __init__(self, sim: "MovesSimulation") -> None:
        self._sim = sim
        self._rng = stream(sim.seed, "leaders")
        self._ids = stream(sim.seed, "ids")
        self._working: dict[NodeId, Working] = {}
        self.takeovers = 0

    def stepped(self, node: "SimNode") -> None:
        """A node took a step: its role or its state may have changed."""
        working = self._working.get(node.id)
        if working is not None and working.task.done():
            self._ended(node.id, working)
            working = None
        if working is None and node.leads:
            self._start(node)
        elif working is not None and not node.leads and not working.ending:
            working.ending = True
            delay = self._rng.choice((0, 20_000, self._sim.wildness.late_us))
            self._sim.at(self._sim.now + self._rng.randrange(delay + 1), self._end, node.id, working)
        if working is not None and working.control.state.revision != working.revision:
            working.revision = working.control.state.revision
            working.loop.call_soon(working.control.ring)

    def _start(self, node: "SimNode") -> None:
        loop = VirtualLoop(self._sim, node)
        control, mover = SimControl(self._sim, node, loop), SimMover(self._sim, loop, node.id)
        executor = Executor(control, mover, node.id, SimClock(self._sim), self._new_id)
        self.takeovers += 1
        self._sim.trace.note(self._sim.now, f"n{node.id} starts an executor")
        self._working[node.id] = Working(loop, control, loop.create_task(executor.run()))

    def _end(self, node: NodeId, working: Working) -> None:
        if not working.loop.dead:
            self._sim.trace.note(self._sim.now, f"n{node} ends its executor")
            working.loop.call_soon(working.task.cancel)

    def crashed(self, node: NodeId) -> None:
        """Nothing of it goes on, but for what is on its way already."""
        working = self._working.pop(node, None)
        if working is not None:
            self._kill(working)

    def end_all(self) -> None:
        """The run is over."""
        for node in list(self._working):
            self.crashed(node)

    def _ended(self, node: NodeId, working: Working) -> None:
        del self._working[node]
        self._kill(working)
        if not working.task.cancelled() and (error := working.task.exception()) is not None:
            raise error

    def _kill(self, working: Working) -> None:
        if working.loop.errors:
            raise AssertionError(f"in an executor: {working.loop.errors[0]}")
        working.loop.kill(working.task)

    def _new_id(self) -> UUID:
        return UUID(int=self._ids.getrandbits(128), version=4)
