"""How fast moves may go: below an operator's rates, and slower as soon as the shards' own writes get slow.

Before each slice the mover may probe the two shards: it commits a tiny record there and looks how long that took. More
than what is allowed (an operator's latency, or three times what it was before anything was moved) lowers the rate by a
third; otherwise it rises by a fixed step. So moves that run at the same time share what the shards have left.
"""

import asyncio
import time
from math import inf
from statistics import median
from typing import Final

from denizen import limits
from denizen.sharding.ids import ShardId

_SLOWER: Final = 0.67
_TIMES_BEFORE: Final = 3.0


class Pace:
    """Shared by all moves of a node. `latency_ms` 0: by what was before; rates of 0: no limit but the latency."""

    def __init__(self, *, events_per_s: int = 0, rows_per_s: int = 0, latency_ms: int = 0) -> None:
        self._before: dict[ShardId, list[float]] = {}
        self._quick = 1.0  # part of the full rate that the shards allow
        self._ready = {"events": 0.0, "rows": 0.0}
        self._probed: dict[ShardId, float] = {}  # when
        self.set(events_per_s=events_per_s, rows_per_s=rows_per_s, latency_ms=latency_ms)

    def set(self, *, events_per_s: int, rows_per_s: int, latency_ms: int) -> None:
        """The operator's limits, from now on."""
        self._operator = {"events": events_per_s, "rows": rows_per_s}
        self._latency_s = latency_ms / 1000

    def calm(self, shard: ShardId, seconds: float) -> None:
        """A probe while nothing moved: what is usual."""
        usual = self._before.setdefault(shard, [])
        usual.append(seconds)
        del usual[: -limits.move_calm_probes]

    def heard(self, shard: ShardId, seconds: float) -> None:
        """A probe while something moves."""
        if seconds > self.allowed_s(shard):
            self._quick = max(self._quick * _SLOWER, limits.move_rate_min / limits.move_rate_max)
        else:
            self._quick = min(self._quick + limits.move_rate_step / limits.move_rate_max, 1.0)

    def allowed_s(self, shard: ShardId) -> float:
        """How long a small commit may take."""
        if self._latency_s:
            return self._latency_s
        usual = self._before.get(shard)
        return max(median(usual) * _TIMES_BEFORE if usual else 0.0, limits.move_latency_floor_ms / 1000)

    def rate(self, what: str) -> float:
        """Events or rows per second, now."""
        full = limits.move_rate_max * self._quick
        return min(full, self._operator[what] or full)

    def slice(self, what: str) -> int:
        """How much to do at a time: a fifth of a second's worth, so that nothing is held for long."""
        return int(min(max(self.rate(what) / 5, limits.move_slice_events_min), limits.move_slice_events_max))

    async def wait(self, what: str) -> None:
        """Wait until what was done before is paid for."""
        await asyncio.sleep(max(self._ready[what] - time.monotonic(), 0.0))

    def spent(self, what: str, amount: int) -> None:
        """So many events or rows were done."""
        self._ready[what] = max(self._ready[what], time.monotonic()) + amount / self.rate(what)

    def due(self, shard: ShardId) -> bool:
        """Whether the shard is to be probed now; then it counts as probed."""
        now = time.monotonic()
        if now - self._probed.get(shard, -inf) < limits.move_probe_interval_s:
            return False
        self._probed[shard] = now
        return True
