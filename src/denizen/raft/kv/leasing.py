"""The leader's clock for leases: it decides that one has run out, and the log makes it so.

A lease's time is counted from the moment this node saw it granted or renewed, or became the leader: a new leader gives
every lease its full time, so that a lease never ends early. Renewals are commands too, so that a leader that was cut
off cannot promise anything. A stale decision does no harm: entries of earlier terms are applied before a new leader
answers anybody, and a renewal after the revocation finds the lease gone.
"""

from collections.abc import Mapping
from typing import NamedTuple

from denizen.raft.kv.model import Lease


class _Clock(NamedTuple):
    renewals: int
    ends_at: float


class LeaseClock:
    """When each lease ends, on a monotonic clock given by the caller. Pure: it holds no timer."""

    def __init__(self) -> None:
        self._clocks: dict[int, _Clock] = {}
        self._term: int | None = None

    def expired(self, leases: Mapping[int, Lease], term: int | None, now: float) -> list[int]:
        """Return the leases that have run out, in the order of their ids; `term` is None unless this node leads."""
        if term != self._term:
            self._clocks.clear()
            self._term = term
        if term is None:
            return []
        for gone in self._clocks.keys() - leases.keys():
            del self._clocks[gone]
        for lease in leases.values():
            clock = self._clocks.get(lease.id)
            if clock is None or clock.renewals != lease.renewals:
                self._clocks[lease.id] = _Clock(lease.renewals, now + lease.ttl_s)
        return sorted(id for id, clock in self._clocks.items() if clock.ends_at <= now)

    def remaining_s(self, lease: int, now: float) -> float | None:
        """Return the seconds a lease has left, or None when this node does not count it."""
        clock = self._clocks.get(lease)
        return None if clock is None else max(0.0, clock.ends_at - now)
