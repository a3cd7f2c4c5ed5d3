"""What relays and feeds count, in Prometheus' default registry: whatever process they run in shows it."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from denizen.bus.sequencer import Sequencer
from denizen.sharding.ids import ShardId

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)

_relay_events: Final = Counter("denizen_relay_events", "Events published", ["shard"])
_relay_messages: Final = Counter("denizen_relay_messages", "Messages published", ["shard"])
_relay_resumes: Final = Counter("denizen_relay_resumes", "Times a relay began from what the stream holds", ["shard"])
_relay_behind: Final = Gauge("denizen_relay_behind", "Buckets with events not published yet", ["shard"])
_relay_leading: Final = Gauge("denizen_relay_leading", "1 where this process is the shard's relay", ["shard"])
_relay_seconds: Final = Histogram(
    "denizen_relay_lag_seconds", "From an event's recording to its publication", ["shard"], buckets=_SECONDS
)
rested_seconds: Final = Counter("denizen_rush_rested_seconds", "Time for which writers went first, in rushes")
hints_sent: Final = Counter("denizen_bus_hints", "Hints sent to relays and projectors")

_feed_events: Final = Counter("denizen_feed_events", "Events a feed took, by where from", ["feed", "source"])
_feed_duplicates: Final = Counter("denizen_feed_duplicates", "Events that came again, and were dropped", ["feed"])
_feed_holes: Final = Counter("denizen_feed_holes", "Holes found in what the bus brought", ["feed"])
_feed_bad: Final = Counter("denizen_feed_bad_messages", "Messages that could not be read", ["feed"])
_feed_listening: Final = Gauge("denizen_feed_listening", "1 while events come live from the bus", ["feed"])


class RelayMetrics:
    """The counters of one shard's relay."""

    def __init__(self, shard: ShardId) -> None:
        self.events: Counter = _relay_events.labels(shard)
        self.messages: Counter = _relay_messages.labels(shard)
        self.resumes: Counter = _relay_resumes.labels(shard)
        self.behind: Gauge = _relay_behind.labels(shard)
        self.leading: Gauge = _relay_leading.labels(shard)
        self.seconds: Histogram = _relay_seconds.labels(shard)


class FeedMetrics:
    """The counters of one feed."""

    def __init__(self, name: str) -> None:
        self.live: Counter = _feed_events.labels(name, "bus")
        self.healed: Counter = _feed_events.labels(name, "postgres")
        self.bad_messages: Counter = _feed_bad.labels(name)
        self._duplicates = _feed_duplicates.labels(name)
        self._holes = _feed_holes.labels(name)
        self._gauge = _feed_listening.labels(name)
        self._counted = (0, 0)
        self._listening = False

    @property
    def listening(self) -> bool:
        """Whether events come live from the bus now."""
        return self._listening

    @listening.setter
    def listening(self, value: bool) -> None:
        self._listening = value
        self._gauge.set(value)

    def count(self, source: Counter, events: int, sequencer: Sequencer) -> None:
        """Count events that became ready, and the duplicates and holes since the last call."""
        source.inc(events)
        duplicates, holes = self._counted
        if (sequencer.duplicates, sequencer.holes) != self._counted:
            self._counted = (sequencer.duplicates, sequencer.holes)
            self._duplicates.inc(sequencer.duplicates - duplicates)
            self._holes.inc(sequencer.holes - holes)


def feed_metrics(name: str) -> FeedMetrics:
    """The counters of the feed with this name; two feeds of one name in a process share them."""
    return FeedMetrics(name)
