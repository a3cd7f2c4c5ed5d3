"""What a leader knows about one follower, and how much it may send to it.

PROBE       where the logs agree is not known: one append at a time, answered before the next, or again at the next
heartbeat REPLICATE   they agree up to `match`: appends are pipelined, as many as the window allows, and `next`
runs ahead SNAPSHOT    the entries it needs are compacted: it receives a snapshot in chunks, and only heartbeats
beside it
"""

from collections import deque
from enum import IntEnum

from denizen.raft.types import Index, Millis, NodeId, Snapshot


class Mode(IntEnum):
    """How a leader sends to a follower."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """One follower, as its leader sees it."""

    __slots__ = (
        "asked_at",
        "contact",
        "inflight",
        "inflight_bytes",
        "lease_from",
        "match",
        "mode",
        "next",
        "node",
        "offset",
        "probed",
        "probed_until",
        "round",
        "snapshot",
        "told_commit",
        "told_round",
    )

    def __init__(self, node: NodeId, following: Index, now: Millis) -> None:
        self.node = node
        self.mode = Mode.PROBE
        self.match = Index(0)
        self.next = following
        self.probed = False
        """In PROBE: an append is on its way."""
        self.probed_until = Index(0)
        """In PROBE: the last entry of that append, which need not be sent again if it fits."""
        self.inflight: deque[tuple[Index, int]] = deque()
        """In REPLICATE: the last index and the bytes of each unanswered append."""
        self.inflight_bytes = 0
        self.contact = now
        """When it last answered (or the leadership began)."""
        self.round = 0
        """The newest round it answered."""
        self.lease_from: Millis = Millis(-(1 << 62))
        """When the newest round it answered was begun."""
        self.told_commit = Index(0)
        self.told_round = 0
        self.snapshot: Snapshot | None = None
        self.offset = 0
        self.asked_at = now

    def probe(self, following: int) -> None:
        """Find the agreement again, from `following` on."""
        self.mode = Mode.PROBE
        self.next = Index(following)
        self.probed = False
        self.probed_until = Index(0)
        self._forget_inflight()

    def replicate(self) -> None:
        """The logs agree up to `match`: send on without waiting."""
        self.mode = Mode.REPLICATE
        self.next = Index(max(self.match, self.probed_until) + 1)
        self._forget_inflight()

    def send_snapshot(self, snapshot: Snapshot, now: Millis) -> None:
        """Begin to send this snapshot from its start."""
        self.mode = Mode.SNAPSHOT
        self.snapshot = snapshot
        self.offset = 0
        self.asked_at = now
        self.probed_until = Index(0)
        self._forget_inflight()

    def sent(self, last: Index, size: int) -> None:
        """An append up to `last` left."""
        if self.mode is Mode.REPLICATE:
            self.next = Index(last + 1)
            self.inflight.append((last, size))
            self.inflight_bytes += size
        else:
            self.probed = True
            self.probed_until = last

    def matched(self, match: Index) -> None:
        """It holds everything up to `match`, durably."""
        self.match = match
        inflight = self.inflight
        while inflight and inflight[0][0] <= match:
            self.inflight_bytes -= inflight.popleft()[1]
        if self.mode is Mode.PROBE or (self.snapshot is not None and self.snapshot.index <= match):
            self.replicate()
        elif self.next <= match:
            self.next = Index(match + 1)

    def _forget_inflight(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot = self.snapshot if self.mode is Mode.SNAPSHOT else None
