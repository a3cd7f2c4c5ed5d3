"""A batch of events, looked through once for all projections.

Whatever version of a projection takes them, they are the same events of the same users, and end each bucket in the same
place. Only a version that is behind or ahead of the others takes another part of them.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from denizen.events.records import RecordedEvent
from denizen.invariants import InvariantBroken, invariant
from denizen.projections.folding import Streams, by_stream
from denizen.sharding.ids import Bucket


class Arrivals(Struct, frozen=True):
    """Events that follow each other in their buckets, with the sequences before them and at their ends."""

    events: list[RecordedEvent]
    before: dict[Bucket, int]
    ends: dict[Bucket, int]
    streams: Streams  # those of users, by user

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
        new = Arrivals.of(
            event for event in self.events if event.position.sequence > checkpoints[event.position.bucket]
        )
        for bucket, before in new.before.items():
            known = checkpoints[bucket]
            invariant(before == known, "events come without holes", bucket=bucket, sequence=before + 1, after=known)
        return new
