"""A batch of events, looked through once for all projections.

Whatever version of a projection takes them, they are the same events of the same users, and end each bucket in the same
place. Only a version that is behind or ahead of the others takes another part of them.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from denizen.bus.batches import Batch
from denizen.events.records import RecordedEvent
from denizen.invariants import InvariantBroken, invariant
from denizen.projections.folding import Streams, by_stream
from denizen.sharding.ids import Bucket


class Arrivals(Struct, frozen=True):
    """Events that follow each other in their buckets, with the sequences before them and at their ends.

    Between these may be more that no projection reads.
    """

    events: list[RecordedEvent]
    before: dict[Bucket, int]
    ends: dict[Bucket, int]
    streams: Streams  # those of users, by user

    @property
    def count(self) -> int:
        """How many events that are."""
        return sum(self.ends.values()) - sum(self.before.values())

    @classmethod
    def of_batch(cls, batch: Batch) -> "Arrivals":
        """What a feed gave."""
        if batch.spans is None:
            return cls.of(batch.events)
        before = {bucket: span[0] for bucket, span in batch.spans.items()}
        ends = {bucket: span[1] for bucket, span in batch.spans.items()}
        return cls(batch.events, before, ends, by_stream(batch.events))

    @classmethod
    def of(cls, events: Iterable[RecordedEvent]) -> "Arrivals":
        """These events, which must have no holes."""
        arrived = list(events)
        before: dict[Bucket, int] = {}
        ends: dict[Bucket, int] = {}
        for event in arrived:
            bucket, sequence = event.position.bucket, event.position.sequence
            end = ends.get(bucket)
            if end is None:
                before[bucket] = sequence - 1
            elif sequence != end + 1:
                raise InvariantBroken(f"events come without holes: bucket={bucket}, {sequence} after {end}")
            ends[bucket] = sequence
        return cls(arrived, before, ends, by_stream(arrived))

    def after(self, checkpoints: Mapping[Bucket, int]) -> "Arrivals":
        """What comes after these checkpoints; it must be the very next."""
        if self.before.items() <= checkpoints.items():
            return self
        ends = {bucket: end for bucket, end in self.ends.items() if end > checkpoints[bucket]}
        before = {bucket: checkpoints[bucket] for bucket in ends}
        for bucket, known in before.items():
            first = self.before[bucket] + 1
            invariant(first <= known + 1, "events come without holes", bucket=bucket, sequence=first, after=known)
        events = [event for event in self.events if event.position.sequence > checkpoints[event.position.bucket]]
        return Arrivals(events, before, ends, by_stream(events))
