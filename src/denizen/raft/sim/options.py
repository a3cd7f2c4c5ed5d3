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
    delay_us: int = 2_000
    sync_us: int = 2_000
    think_us: int = 25_000
    snapshot_every: int = 20
    lease_reads: bool = False
    pre_vote: bool = True
    chunk_bytes: int = 96
    log_kept_entries: int = 5

    def settings(self, node: NodeId) -> Settings:
        """The core's settings of one node: small limits, so that each of them is met."""
        return Settings(
            id=node,
            pre_vote=self.pre_vote,
            lease_reads=self.lease_reads,
            inflight_messages_max=4,
            inflight_bytes_max=4_096,
            append_entries_max=8,
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
        options.pre_vote = rng.random() < 0.8
        return options
