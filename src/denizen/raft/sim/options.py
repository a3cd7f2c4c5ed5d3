"""What kind of run a seed makes: the members, the settings of the core, how hostile the world is."""

from dataclasses import dataclass, field
from random import Random

from denizen.raft.types import NodeId, Settings

FAULTS = (
    "crash",
    "crash_all",
    "partition",
    "one_way",
    "isolate_leader",
    "heal",
    "pause",
    "slow_disk",
    "damage",
    "transfer",
    "change",
)


@dataclass(slots=True)
class Options:
    """All times in microseconds of virtual time, but for the core's settings."""

    founders: int = 3
    spares: int = 2
    """Nodes that run from the start and wait to be added."""
    clients: int = 3
    chaos_us: int = 1_500_000
    """How long faults happen."""
    settle_us: int = 6_000_000
    """How long the cluster may take to make progress once faults stopped."""
    fault_every_us: int = 90_000
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault is chosen, relative to the others."""
    loss: float = 0.0
    duplication: float = 0.0
    late: float = 0.0
    """How many messages arrive very late, long after newer ones."""
    delicate: float = 0.0
    """How many of the moments that matter (a vote, an election, a snapshot) end in a crash or a cut right after."""
    delay_us: int = 2_000
    sync_us: int = 2_000
    think_us: int = 25_000
    snapshot_every: int = 20
    lease_reads: bool = False
    election_ms: int = 150
    heartbeat_ms: int = 40
    check_quorum: bool = True
    pre_vote: bool = True
    restarts_us: tuple[int, ...] = (2_000, 100_000, 400_000)
    """How long crashed nodes stay down."""
    leaders_only: bool = False
    """Only what happens to leaders counts as a delicate moment."""
    chunk_bytes: int = 96
    log_kept_entries: int = 5
    append_entries_max: int = 8
    inflight_messages_max: int = 4

    def settings(self, node: NodeId) -> Settings:
        """The core's settings of one node: small limits, so that each of them is met."""
        return Settings(
            id=node,
            election_ms=self.election_ms,
            heartbeat_ms=self.heartbeat_ms,
            lease_margin_ms=self.election_ms // 5,
            check_quorum=self.check_quorum,
            pre_vote=self.pre_vote,
            lease_reads=self.lease_reads,
            inflight_messages_max=self.inflight_messages_max,
            inflight_bytes_max=4_096,
            append_entries_max=self.append_entries_max,
            append_bytes_max=1_024,
            uncommitted_entries_max=24,
            chunk_bytes=self.chunk_bytes,
            log_kept_entries=self.log_kept_entries,
            promotion_lag_entries=4,
        )

    @classmethod
    def drawn(cls, rng: Random) -> "Options":
        """The options of a random run: most faults, of varying strength, in varying company."""
        options = cls(founders=rng.choice((3, 3, 3, 5, 4, 1)), spares=rng.choice((0, 2, 2)))
        kinds = [kind for kind in FAULTS if rng.random() < 0.6] or ["crash"]
        options.faults = {kind: rng.randint(1, 4) for kind in kinds}
        options.faults["heal"] = options.faults.get("heal", 0) + 3
        if "change" in options.faults:
            options.faults.pop("damage", None)  # which minority may be damaged depends on who votes
        options.fault_every_us = rng.choice((40_000, 90_000, 160_000))
        options.loss = rng.choice((0.0, 0.0, 0.02, 0.1))
        options.duplication = rng.choice((0.0, 0.02, 0.1))
        options.late = rng.choice((0.0, 0.02, 0.1))
        options.delay_us = rng.choice((300, 2_000, 10_000))
        options.sync_us = rng.choice((200, 2_000, 8_000))
        options.think_us = rng.choice((8_000, 25_000))
        options.snapshot_every = rng.choice((6, 20, 1_000))
        options.log_kept_entries = rng.choice((0, 5))
        options.lease_reads = rng.random() < 0.3
        options.pre_vote = rng.random() < 0.7
        options.delicate = rng.choice((0.0, 0.0, 0.1, 0.4))
        options.append_entries_max = rng.choice((1, 3, 8))
        if rng.random() < 0.15:
            options.make_stormy(rng)
        return options

    @classmethod
    def stormy(cls, rng: Random) -> "Options":
        """A random run of the kind that `make_stormy` describes."""
        options = cls.drawn(rng)
        options.make_stormy(rng)
        return options

    @classmethod
    def changing(cls, rng: Random) -> "Options":
        """A random run of a small cluster whose members are replaced all the time, while leaders fall."""
        options = cls.drawn(rng)
        options.founders, options.spares, options.clients = 3, 3, 1
        options.faults = {"change": 6, "heal": 4, "crash": 2, "crash_all": 1, "partition": 3, "isolate_leader": 2}
        options.election_ms, options.heartbeat_ms = 50, 15
        options.delay_us, options.sync_us, options.think_us = 1_000, 500, 20_000
        options.fault_every_us, options.chaos_us = 40_000, 2_500_000
        options.snapshot_every, options.delicate, options.restarts_us = 1_000, 0.1, (2_000,)
        return options

    @classmethod
    def falling(cls, rng: Random) -> "Options":
        """A random run in which nearly every leader falls right after its election or its first commit (paper, figure
        8).
        """
        options = cls.stormy(rng)
        options.founders, options.check_quorum = 5, False
        options.append_entries_max = options.inflight_messages_max = 1
        options.leaders_only, options.delicate, options.restarts_us = True, 0.9, (60_000, 150_000)
        return options

    def make_stormy(self, rng: Random) -> None:
        """Answers take as long as the shortest time-outs: elections collide, and leaders fall as soon as they rise."""
        self.founders, self.spares, self.clients = rng.choice((3, 5, 5, 5)), 0, 1
        self.election_ms, self.heartbeat_ms = 30, 10
        self.delay_us = 10_000
        self.loss, self.duplication, self.late = rng.choice((0.0, 0.1)), 0.0, rng.choice((0.05, 0.1))
        self.pre_vote, self.check_quorum, self.lease_reads = False, rng.random() < 0.3, False
        self.delicate, self.append_entries_max = 0.3, rng.choice((1, 1, 3))
        self.inflight_messages_max = rng.choice((1, 1, 4))
        self.restarts_us = rng.choice(((2_000,), (2_000, 60_000)))
        self.chaos_us, self.think_us, self.snapshot_every = 2_500_000, rng.choice((5_000, 15_000)), 1_000
        self.faults = {"crash": 2, "isolate_leader": 2, "heal": 6}
        self.fault_every_us = 30_000


PROFILES = {"drawn": Options.drawn, "stormy": Options.stormy, "falling": Options.falling, "changing": Options.changing}
"""The kinds of runs that can be asked for by name."""
