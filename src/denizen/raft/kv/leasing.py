"""A node's clock for leases: the leader decides by its own that one has run out, and the log makes it so.

A lease's time is counted from the moment this node saw it granted or renewed, or learned of a new leader: that one
gives every lease its full time, so that a lease never ends early. The others count only to tell what is left. Renewals
are commands too, so that a leader that was cut off cannot promise anything. A stale decision does no harm: entries of
earlier terms are applied before a new leader answers anybody, and a renewal after the revocation finds the lease gone.
"""

from collections.abc import Mapping
from typing import NamedTuple

from denizen.raft.kv.model import Lease


class _Clock(NamedTuple):
    lease: Lease
    """As it was granted or renewed; the same object as long as nothing happened to it."""
    ends_at: float


class LeaseClock:
    """When each lease ends, on a monotonic clock given by the caller. Pure: it holds no timer."""

    def __init__(self) -> None:
        self._clocks: dict[int, _Clock] = {}
        self._led: tuple[int, int | None] | None = None

    def count(self, leases: Mapping[int, Lease], led: tuple[int, int | None], now: float) -> None:
        """Take in which leases there are; `led` is the term and its leader: with another one all begin anew."""
        if led != self._led:
            self._clocks.clear()
            self._led = led
        for gone in self._clocks.keys() - leases.keys():
            del self._clocks[gone]
        for lease in leases.values():
            clock = self._clocks.get(lease.id)
            if clock is None or clock.lease is not lease:
                self._clocks[lease.id] = _Clock(lease, now + lease.ttl_s)

    def expired(self, now: float) -> list[int]:
        """Return the leases that have run out, in the order of their ids."""
        return sorted(id for id, clock in self._clocks.items() if clock.ends_at <= now)

    def remaining_s(self, lease: int, now: float) -> float | None:
        """Return the seconds a lease has left, or None when it was not counted yet."""
        clock = self._clocks.get(lease)
        return None if clock is None else max(0.0, clock.ends_at - now)
