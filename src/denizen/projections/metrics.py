"""What a projector counts, in Prometheus' default registry, and how late its events were lately."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from denizen import limits
from denizen.events.records import RecordedEvent

_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
_RECENT_MAX: Final = 1_000
_SAMPLE_MAX: Final = 4  # events of a batch whose lateness is looked at

_applied: Final = Counter("denizen_projection_events", "Events applied", ["projection"])
_seconds: Final = Histogram(
    "denizen_projection_lag_seconds", "From an event's recording to its being visible", ["projection"], buckets=_SECONDS
)
_behind: Final = Gauge("denizen_projection_behind", "Events known to exist and not applied", ["projection"])


class Lag:
    """How late one projection's events became visible."""

    def __init__(self, projection: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._projection = projection
        self._clock = clock
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT_MAX)  # when it was seen, milliseconds
        self._seconds = _seconds.labels(projection)
        self._applied = _applied.labels(projection)

    def applied(self, events: list[RecordedEvent], new: int) -> None:
        """So many events have just become visible, the last of these among them."""
        now, seen = datetime.now(UTC), self._clock()
        self._applied.inc(new)
        fresh = events[max(0, len(events) - new) :]
        for event in fresh[:: 1 + len(fresh) // _SAMPLE_MAX]:
            late = max(0.0, (now - event.recorded_at).total_seconds())
            self._seconds.observe(late)
            self._recent.append((seen, late * 1000))

    def behind(self, events: int) -> None:
        """How many events are known to exist and are not applied."""
        _behind.labels(self._projection).set(events)

    def close(self) -> None:
        """Nothing is applied any more: how much is missing is not known from now on."""
        with suppress(KeyError):  # closed before it was told
            _behind.remove(self._projection)

    def percentiles(self) -> tuple[float | None, float | None]:
        """p50 and p99 of what became visible lately, in milliseconds; None if nothing did."""
        since = self._clock() - limits.projector_lag_window_s
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        ordered = sorted(late for _, late in self._recent)
        if not ordered:
            return None, None
        return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
