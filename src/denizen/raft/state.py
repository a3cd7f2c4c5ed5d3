"""Everything one node knows at a moment. The other modules are functions over it, each about one noun.

Nothing here decides anything; it only keeps the facts together, and the effects of the step at hand.
"""

from collections import deque
from random import Random

from denizen.raft.configuration import ConfigurationHistory
from denizen.raft.effects import Effects, Leadership
from denizen.raft.log import Log
from denizen.raft.messages import Message
from denizen.raft.progress import Progress
from denizen.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    HardState,
    Index,
    Millis,
    NodeId,
    Repair,
    Restored,
    Role,
    Settings,
    Snapshot,
    Term,
)

FAR_AWAY = Millis(1 << 62)


class Leading:
    """What only a leader has, for as long as it leads."""

    __slots__ = (
        "acked",
        "change_key",
        "heartbeat_at",
        "lease_broken",
        "notice_at",
        "progress",
        "read_rounds",
        "reads_waiting",
        "round",
        "rounds",
        "term_start",
        "transfer_deadline",
        "transfer_key",
        "transfer_to",
        "transfer_told",
    )

    def __init__(self, term_start: Index, now: Millis) -> None:
        self.term_start = term_start
        """The index of the entry this term began with; once it is committed the commit index can be trusted for
        reads.
        """
        self.progress: dict[NodeId, Progress] = {}
        self.round = 0
        self.rounds: deque[tuple[int, Millis]] = deque()
        """When each of the last rounds was begun; for leases."""
        self.heartbeat_at = now
        self.notice_at = FAR_AWAY
        self.acked = True
        """A round was answered, or the members changed, since the reads were last looked at."""
        self.reads_waiting: list[tuple[NodeId, int]] = []
        """Who asked and its key or ticket: reads that no round covers yet."""
        self.read_rounds: deque[tuple[int, Index, list[tuple[NodeId, int]]]] = deque()
        """The round each group of reads waits for, and the commit index when it began."""
        self.change_key: int | None = None
        self.transfer_key: int | None = None
        self.transfer_to = NO_NODE
        self.transfer_told = False
        self.transfer_deadline = FAR_AWAY
        self.lease_broken = False
        """A transfer was tried in this term: its target may campaign at any time, so no lease is safe any more."""


class Following:
    """What a node keeps about the leader it follows in this term."""

    __slots__ = ("ack_due", "acked_match", "round", "verified")

    def __init__(self, verified: Index) -> None:
        self.verified = verified
        """The log agrees with the leader's up to here; at least the commit index, which every leader has."""
        self.round = 0
        self.acked_match = Index(0)
        self.ack_due = False


class State:
    """One node."""

    __slots__ = (
        "applied",
        "commit",
        "configurations",
        "contact",
        "durable_number",
        "effects",
        "election_timeout",
        "following",
        "hard_dirty",
        "hard_number",
        "held",
        "id",
        "installing",
        "leader",
        "leading",
        "log",
        "now",
        "number",
        "pending",
        "promised_until",
        "reads_asked",
        "reads_confirmed",
        "reads_unsent",
        "repair",
        "rng",
        "role",
        "settings",
        "snapshot",
        "term",
        "ticket",
        "told_configuration",
        "told_leadership",
        "unsaved",
        "vote",
        "votes",
        "wake_at",
        "write_keep_log",
        "write_snapshot",
    )

    def __init__(self, settings: Settings, restored: Restored, rng: Random, now: Millis) -> None:
        self.settings = settings
        self.id = settings.id
        self.rng = rng
        self.now = now
        self._restore(restored)
        self.role = Role.FOLLOWER
        self.leader = NO_NODE
        self.leading: Leading | None = None
        self.following = Following(self.commit)
        self.votes: dict[NodeId, bool] = {}
        # Time
        self.contact = now
        """The election timer runs from here."""
        self.promised_until = Millis(now + settings.election_ms)
        """Until then no other candidate is helped: a leader may rely on it. A restarted node does not remember, so it
        waits.
        """
        self.election_timeout = 0
        self.wake_at = now
        # Durability
        self.number = 0
        self.durable_number = 0
        self.hard_dirty = False
        self.hard_number = 0
        """The write that holds the newest hard state."""
        self.held: list[Message] = []
        """Messages that may leave once `hard_number` is durable."""
        self.pending: deque[tuple[int, Index]] = deque()
        """For each write under way: its number, and up to which index the log is durable with it."""
        self.unsaved: list[Entry] = []
        self.write_snapshot: Snapshot | None = None
        self.write_keep_log = False
        self.installing: tuple[int, Snapshot] | None = None
        # Reads asked of another leader, and reads that wait to be applied
        self.reads_unsent: list[int] = []
        self.reads_asked: dict[int, tuple[Millis, list[int]]] = {}
        self.reads_confirmed: list[tuple[Index, int]] = []
        self.ticket = rng.getrandbits(40) << 20
        # What the caller was told
        self.effects = Effects()
        self.told_configuration: Configuration | None = None
        self.told_leadership = Leadership(Role.FOLLOWER, self.term, NO_NODE)

    def _restore(self, restored: Restored) -> None:
        snapshot, entries = restored.snapshot, restored.entries
        base_index, base_term = restored.base_index, restored.base_term
        if snapshot is not None and (base_index + len(entries) < snapshot.index or base_index > snapshot.index):
            base_index, base_term = snapshot.index, snapshot.term
            entries = [entry for entry in entries if entry.index > snapshot.index]
        self.log = Log(base_index, base_term, entries)
        founding = snapshot.configuration if snapshot is not None else restored.configuration
        self.snapshot = snapshot
        self.commit: Index = snapshot.index if snapshot is not None else Index(0)
        self.applied: Index = self.commit
        self.configurations = ConfigurationHistory(self.commit, founding)
        self.configurations.appended(self.log.slice(self.commit + 1, self.log.last_index))
        self.term: Term = restored.hard_state.term
        self.vote: NodeId = restored.hard_state.vote
        self.repair: Repair | None = restored.repair

    @property
    def configuration(self) -> Configuration:
        """The one in effect: the newest in the log."""
        return self.configurations.current

    @property
    def hard_state(self) -> HardState:
        """Term and vote, as they must be durable before a message in this term leaves."""
        return HardState(self.term, self.vote)

    def set_hard_state(self, term: Term, vote: NodeId) -> None:
        """Change term and vote; nothing leaves until the new ones are durable."""
        self.term, self.vote = term, vote
        self.hard_dirty = True

    def send(self, message: Message) -> None:
        """Send now, or once the hard state is durable."""
        if self.hard_dirty or self.hard_number > self.durable_number:
            self.held.append(message)
        else:
            self.effects.send.append(message)

    def append(self, entries: list[Entry]) -> None:
        """Append to the log and remember to make it durable."""
        self.log.append(entries)
        self.unsaved.extend(entries)
        self.configurations.appended(entries)
