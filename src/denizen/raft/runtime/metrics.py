"""What a node counts, and what it tells about itself."""

from dataclasses import dataclass

import msgspec

from denizen.raft.types import Configuration


@dataclass(slots=True)
class Metrics:
    """Counters since the node started; all of them only rise."""

    proposals: int = 0
    proposals_forwarded: int = 0
    entries_applied: int = 0
    reads: int = 0
    steps: int = 0
    writes: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    frames_malformed: int = 0
    frames_dropped: int = 0
    connections_refused: int = 0
    log_syncs: int = 0
    log_bytes: int = 0
    leadership_changes: int = 0
    """Leaders that this node has learned of, each once a term."""
    snapshots_made: int = 0
    snapshots_restored: int = 0
    outcomes_unknown: int = 0


class Status(msgspec.Struct, frozen=True):
    """One node as it sees itself and the cluster at this moment."""

    id: int
    role: str
    """leader, follower, candidate, pre_candidate, learner, or outsider: not a member (yet, or any more)"""
    term: int
    leader: int | None
    leader_address: str | None
    commit: int
    applied: int
    first_index: int
    last_index: int
    snapshot_index: int
    configuration: Configuration
    addresses: dict[int, str]
    unreachable: dict[int, str]
    """Peers that this node cannot connect to, and why."""
    dropped_tail_bytes: int
    """What the last start dropped of a torn last write."""
    metrics: dict[str, int]

    @property
    def voters(self) -> tuple[int, ...]:
        """Who votes now."""
        return self.configuration.electors

    @property
    def learners(self) -> tuple[int, ...]:
        """Who receives the log without voting."""
        return self.configuration.learners
