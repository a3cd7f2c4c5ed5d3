"""A run: the consensus simulation with control nodes, executors where it leads, servers, writers and operators.

First everything goes wrong, in Raft and in the databases. Then it is calm: all servers and nodes run, and operators
only let a paused rebalance go on. Within a bounded time nothing may be left to do, and map and databases must agree.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from msgspec.structs import replace

from denizen.control.machine import ControlMachine
from denizen.control.sim.checkers import MoveCheckers
from denizen.control.sim.databases import Row, RowState
from denizen.control.sim.operators import Operators
from denizen.control.sim.proposing import Leaders, Proposals
from denizen.control.sim.readers import Reader
from denizen.control.sim.servers import Servers
from denizen.control.sim.writers import Writers
from denizen.control.state import ControlState, Stage
from denizen.raft.sim.node import SimNode
from denizen.raft.sim.options import Options
from denizen.raft.sim.randomness import stream
from denizen.raft.sim.simulation import Simulation
from denizen.raft.types import NodeId, Settings
from denizen.sharding.ids import Bucket, Epoch, ShardId

CALM_US = 60_000_000


@dataclass(slots=True)
class Wildness:
    """How hostile the world of the databases is; times in microseconds."""

    lost: float = 0.0
    late: float = 0.0
    late_us: int = 150_000
    delicate: float = 0.0  # how many of the requests that open or fence are late
    delay_us: int = 2_000
    shard_down_every_us: int = 150_000
    shard_down_us: int = 60_000
    corrupt: float = 0.0
    think_us: int = 8_000

    @classmethod
    def drawn(cls, rng: Random) -> "Wildness":
        """Of a random run."""
        if rng.random() < 0.3:
            return cls.belated(rng)
        return cls(
            lost=rng.choice((0.0, 0.01, 0.05)),
            late=rng.choice((0.0, 0.02, 0.1)),
            late_us=rng.choice((40_000, 200_000, 800_000)),
            delay_us=rng.choice((500, 2_000, 8_000)),
            shard_down_every_us=rng.choice((80_000, 200_000, 10_000_000)),
            shard_down_us=rng.choice((10_000, 60_000, 300_000)),
            corrupt=rng.choice((0.0, 0.0, 0.2)),
            think_us=rng.choice((2_000, 8_000, 30_000)),
        )

    @classmethod
    def belated(cls, rng: Random) -> "Wildness":
        """What opens or fences is often late, by more than anybody waits for it."""
        return cls(
            lost=rng.choice((0.0, 0.01)),
            late=0.02,
            late_us=200_000,
            delicate=0.4,
            delay_us=500,
            shard_down_every_us=10_000_000,
            think_us=rng.choice((8_000, 30_000)),
        )


PROFILES: dict[str, Callable[[Random], Wildness]] = {"drawn": Wildness.drawn, "belated": Wildness.belated}
"""The kinds of runs that can be asked for by name."""


class ControlOptions(Options):
    """Of the consensus underneath: room for commands that hold a map."""

    def settings(self, node: NodeId) -> Settings:
        """Larger messages and chunks than the consensus simulation has by itself."""
        settings = super().settings(node)
        return replace(settings, inflight_bytes_max=1 << 20, append_bytes_max=256 << 10, uncommitted_entries_max=200)

    @classmethod
    def drawn_for_control(cls, rng: Random) -> "ControlOptions":
        """Three voters that crash, are cut off, stand still and hand over."""
        kinds = ("crash", "crash_all", "partition", "one_way", "isolate_leader", "pause", "slow_disk", "transfer")
        faults = {kind: rng.randint(1, 3) for kind in kinds if rng.random() < 0.6}
        return cls(
            founders=3,
            spares=0,
            clients=0,
            chaos_us=rng.choice((1_500_000, 3_000_000)),
            settle_us=CALM_US,
            fault_every_us=rng.choice((90_000, 200_000, 500_000)),
            faults=faults | {"heal": 4},
            loss=rng.choice((0.0, 0.0, 0.02)),
            duplication=rng.choice((0.0, 0.02)),
            late=rng.choice((0.0, 0.02)),
            delicate=rng.choice((0.0, 0.0, 0.1)),
            delay_us=rng.choice((300, 2_000)),
            sync_us=rng.choice((200, 2_000)),
            snapshot_every=rng.choice((30, 200, 1_000)),
            chunk_bytes=8_192,
            log_kept_entries=5,
        )


@dataclass(frozen=True, slots=True)
class MovesReport:
    """What a run amounted to."""

    seed: int
    checksum: int
    events: int
    plans: int
    takeovers: int
    committed: int
    undone: int
    writes: int
    held: int
    taken_over: dict[str, int]
    """In which stages moves were when another executor took them up."""


class Reference:
    """The workload, as the consensus simulation calls what knows the right results: a machine that nothing befalls."""

    def __init__(self) -> None:
        self.machine = ControlMachine()
        self.stages: Counter[Stage] = Counter()
        self.taken_over: Counter[str] = Counter()

    def command(self, rng: Random, client: int, number: int) -> bytes:
        """There are no clients of that kind."""
        raise AssertionError("no clients")

    def expect(self, index: int, command: bytes) -> bytes:
        """The reply to the next committed command."""
        before = self.machine.state
        reply = self.machine.apply(index, command)
        if self.machine.state is not before:
            self._count(before, self.machine.state)
        return reply

    def _count(self, before: ControlState, after: ControlState) -> None:
        if before.executor != after.executor:
            self.taken_over.update(move.stage for move in before.moves.values())
        ended = {move.id: move for move in after.ended if move.id in before.moves}
        for id, move in before.moves.items():
            now = after.moves.get(id) or ended.get(id)
            if now is not None and now.stage is not move.stage:
                self.stages[now.stage] += 1


class MovesSimulation(Simulation):
    """One run."""

    workload: Reference

    def __init__(self, seed: int, profile: str = "drawn", *, keep_lines: bool = False) -> None:
        rng = stream(seed, "moves")
        self.wildness = PROFILES[profile](rng)
        self.calm = False
        self.founders = [ShardId("s1"), ShardId("s2"), ShardId("s3")][: rng.choice((2, 3))]
        self.buckets = [Bucket(number) for number in sorted(rng.sample(range(4096), rng.choice((2, 4, 8))))]
        self.reply_rng = stream(seed, "replies")
        options = ControlOptions.drawn_for_control(stream(seed, "options"))
        super().__init__(seed, options, machine=ControlMachine, workload=Reference, keep_lines=keep_lines)
        self.proposals = Proposals(self)
        self.clients = self.proposals  # type: ignore[assignment]
        self.leaders = Leaders(self)
        self.checkers = MoveCheckers(self)
        self.servers = Servers(self, [ShardId(f"s{number}") for number in range(1, 5)], stream(seed, "servers"))
        self._found()
        self.writers = Writers(self, rng.choice((1, 3, 6)), stream(seed, "writers"))
        self.readers = [Reader(self, stream(seed, f"reader {number}")) for number in range(2)]
        self.operators = Operators(self, stream(seed, "operators"))
        self._nemesis_rng = stream(seed, "shards")
        self.at(self.wildness.shard_down_every_us, self._shard_falls)
        self.at(10_000, self._rot)

    def state_of(self, node: SimNode) -> ControlState:
        """What a node has applied."""
        machine = node.machine
        assert isinstance(machine, ControlMachine)  # noqa: S101 - for the type
        return machine.state

    def run(self) -> MovesReport:  # type: ignore[override]
        """Play the run to its end. Raises `Violation`."""
        try:
            return self._play()
        finally:
            self.leaders.end_all()

    def _play(self) -> MovesReport:
        self.run_until(self.options.chaos_us)
        self._stop_faults()
        self.calm = True
        for database in self.servers.databases.values():
            database.up = True
        self.trace.note(self.now, "it is calm")
        self._wait_for("every rebalance has ended and nothing is to be cleaned", self._quiet)
        self.writers.stopped = True
        self._wait_for("every write is acknowledged", lambda: self.writers.waiting == 0)
        self._wait_for("all members have the same state, in which nothing is to be done", self._settled)
        self.checkers.at_end(self.workload.machine.state)
        self.watch.at_end(self._members())
        return self._report()

    def _quiet(self) -> bool:
        return self.checkers.is_quiet(self.workload.machine.state) and self.writers.count() > 0

    def _settled(self) -> bool:
        """Also what an operator said last has been done by then."""
        return super()._settled() and self._quiet()

    def _report(self) -> MovesReport:
        stages, rebalance = self.workload.stages, self.workload.machine.state.rebalance
        return MovesReport(
            seed=self.seed,
            checksum=self.trace.checksum,
            events=self.trace.events,
            plans=self.operators.plans if rebalance is not None else 0,
            takeovers=self.leaders.takeovers,
            committed=stages[Stage.COMMITTED],
            undone=stages[Stage.CANCELLED] + stages[Stage.FAILED],
            writes=self.writers.count(),
            held=stages[Stage.RELEASING],
            taken_over=dict(self.workload.taken_over),
        )

    # The databases

    def _found(self) -> None:
        """The buckets in play, where the first map says."""
        for bucket in self.buckets:
            shard = self.founders[bucket * len(self.founders) // 4096]
            self.servers.databases[shard].rows[bucket] = Row(RowState.OPEN, Epoch(1))

    def _shard_falls(self) -> None:
        if self.calm:
            return
        database = self._nemesis_rng.choice(list(self.servers.databases.values()))
        if database.up:
            self.trace.note(self.now, f"{database.shard} falls")
            database.up = False
            self.at(
                self.now + self._nemesis_rng.randrange(self.wildness.shard_down_us), self._shard_rises, database.shard
            )
        self.at(self.now + self._nemesis_rng.randrange(self.wildness.shard_down_every_us), self._shard_falls)

    def _shard_rises(self, shard: ShardId) -> None:
        self.trace.note(self.now, f"{shard} rises")
        self.servers.databases[shard].up = True

    def _rot(self) -> None:
        """Now and then a row of a copy is lost, or one is there that should not be."""
        if self.calm:
            return
        self.at(self.now + 10_000, self._rot)
        if self._nemesis_rng.random() >= self.wildness.corrupt:
            return
        for database in self.servers.databases.values():
            for bucket, row in database.rows.items():
                copied = row.state is RowState.INCOMING and row.writes and not row.verified
                if copied and self._nemesis_rng.random() < 0.5:
                    self.trace.note(self.now, f"{database.shard}: the copy of b{bucket} rots")
                    row.writes[self._nemesis_rng.randrange(len(row.writes))] = -1
