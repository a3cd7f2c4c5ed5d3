"""From messages that may be lost, doubled and late to each event once, in order: the pure core of a feed.

For each followed bucket it keeps the sequence it has `taken`. An event offered is a duplicate (dropped), the next one
(ready), or early (parked, and the hole before it is to be healed at once). A head that was heard of but not reached is
to be healed after a grace, for the messages may be on their way. Who heals reads from PostgreSQL and offers the
events here like any other; two sources can never disagree, for a position is written once.

Events of types that the consumer does not read are passed over in their turn: they are never decoded, and count as
given with the event before them, or at once if nothing waits.

No clock and no I/O in here: the caller gives the time.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from denizen import limits
from denizen.bus.batches import Batch, Span
from denizen.events.codec import UnknownEvent
from denizen.events.records import RecordedEvent
from denizen.sharding.ids import Bucket


class Unreadable(Struct, frozen=True):
    """The place of an event that this program does not know."""

    bucket: Bucket
    error: UnknownEvent


class Due(Struct, gc=False):
    """When to heal a bucket, up to where at least, and when to heal what was heard of since."""

    at: float
    target: int
    then_at: float


class Offer(Protocol):
    """An event that came, not decoded yet: duplicates never are, nor what is passed over."""

    @property
    def bucket(self) -> Bucket:
        """Its bucket."""
        ...

    @property
    def sequence(self) -> int:
        """Its sequence in the bucket."""
        ...

    @property
    def type(self) -> str:
        """The name of its type; any other text if this program does not know it."""
        ...

    def record(self) -> RecordedEvent:
        """The event; `UnknownEvent` if it cannot be decoded."""
        ...


Item = RecordedEvent | Unreadable


class Sequencer:
    """The order of one feed's events.

    `starts` are the buckets it follows, with the last sequences applied; `passed` the names of the types to pass over.
    """

    def __init__(self, starts: Mapping[Bucket, int], passed: Collection[str] = ()) -> None:
        self._passed = frozenset(passed)
        self._taken: dict[Bucket, int] = dict(starts)
        self._heads: dict[Bucket, int] = dict(starts)
        self._behind: dict[Bucket, Due] = {}
        self._soonest = inf  # when there may be something to heal; nobody looks before
        self._given: dict[Bucket, int] = {}  # what was given last, of buckets with more since
        self._parked: dict[Bucket, dict[int, Item | None]] = {}  # None: to be passed over
        self._parked_count = 0
        self._ready: deque[Item] = deque()
        self.heads: Mapping[Bucket, int] = MappingProxyType(self._heads)
        self.taken: Mapping[Bucket, int] = MappingProxyType(self._taken)
        self.duplicates = self.holes = 0

    @property
    def ready(self) -> int:
        """Events that wait to be taken."""
        return len(self._ready)

    def offer(self, offers: Iterable[Offer], now: float) -> int:
        """Take what is next in each bucket, park what is early; how many events were taken."""
        count = 0
        taken = self._taken
        for offer in offers:
            bucket, sequence = offer.bucket, offer.sequence
            last = taken.get(bucket)
            if last is None:
                continue
            if sequence <= last:
                self.duplicates += 1
            elif sequence == last + 1:
                self._take(bucket, sequence, self._item(offer))
                count += 1
                if bucket in self._parked:
                    count += self._unpark(bucket)
            else:
                self._park(offer, now)
        return count

    def note_heads(self, heads: Mapping[Bucket, int], heal_at: float) -> None:
        """Remember that these sequences exist; those that are not reached by `heal_at` are to be healed then."""
        known, behind = self._heads, self._behind
        taken_of, due_of = self._taken.get, behind.get
        for bucket, head in heads.items():
            taken = taken_of(bucket)
            if taken is None or head <= taken:
                continue
            known[bucket] = max(known[bucket], head)
            due = due_of(bucket)
            if due is None or taken >= due.target or heal_at <= due.at:
                behind[bucket] = Due(heal_at, head, heal_at)
                self._soonest = min(self._soonest, heal_at)
            else:
                due.then_at = heal_at

    def due(self, now: float, wanted: Callable[[Bucket], bool], buckets_max: int) -> dict[Bucket, int]:
        """Buckets to heal now, each with the sequence to read after; only those that are `wanted`."""
        found: dict[Bucket, int] = {}
        if now < self._soonest:
            return found
        soonest = inf
        for bucket, due in list(self._behind.items()):
            taken = self._taken[bucket]
            if taken >= self._heads[bucket]:
                del self._behind[bucket]
                continue
            if taken >= due.target:  # more was heard of since, and may be on its way
                due.at = due.then_at = max(due.then_at, now + limits.feed_grace_s)
                due.target = self._heads[bucket]
            elif due.at <= now and wanted(bucket):
                found[bucket] = taken
                if len(found) == buckets_max:
                    soonest = now
                    break
            soonest = min(soonest, due.at)
        self._soonest = soonest
        return found

    def healed(self, buckets: Mapping[Bucket, int], again_at: float) -> None:
        """After a read: buckets that it did not advance are not asked about before `again_at`."""
        for bucket, after in buckets.items():
            due = self._behind.get(bucket)
            if due is not None and self._taken[bucket] == after:
                due.at, due.then_at = again_at, max(again_at, due.then_at)

    def take(self, events_max: int) -> Batch:
        """The next events, and what they cover; raises the `UnknownEvent` that is the very next."""
        events: list[RecordedEvent] = []
        ready = self._ready
        while ready and len(events) < events_max:
            item = ready[0]
            if isinstance(item, Unreadable):
                if events:
                    break
                raise item.error
            events.append(item)
            ready.popleft()
        return Batch(events, self.heads, self._give(events))

    def seek(self, starts: Mapping[Bucket, int], now: float) -> None:
        """Continue each of these buckets after the given sequence; buckets that were not followed are from now on."""
        self._ready = deque(item for item in self._ready if _bucket(item) not in starts)
        for bucket, start in starts.items():
            self._parked_count -= len(self._parked.pop(bucket, ()))
            self._behind.pop(bucket, None)
            self._given.pop(bucket, None)
            self._taken[bucket] = start
            self._heads[bucket] = head = max(self._heads.get(bucket, start), start)
            if head > start:
                self._behind[bucket] = Due(now, head, now)
                self._soonest = now

    def _take(self, bucket: Bucket, sequence: int, item: Item | None) -> None:
        if item is not None:
            self._ready.append(item)
        if bucket not in self._given:
            self._given[bucket] = sequence - 1
        self._taken[bucket] = sequence
        self._heads[bucket] = max(self._heads[bucket], sequence)

    def _give(self, events: list[RecordedEvent]) -> dict[Bucket, Span]:
        """How far each bucket is with these events, and with all that was passed over if nothing waits any more."""
        given = self._given
        if not self._ready:
            self._given = {}
            ends = self._taken
            return {bucket: (before, ends[bucket]) for bucket, before in given.items() if before < ends[bucket]}
        last: dict[Bucket, int] = {event.position.bucket: event.position.sequence for event in events}
        spans: dict[Bucket, Span] = {bucket: (given[bucket], end) for bucket, end in last.items()}
        given.update(last)
        return spans

    def _item(self, offer: Offer) -> Item | None:
        if offer.type in self._passed:
            return None
        try:
            return offer.record()
        except UnknownEvent as error:
            return Unreadable(offer.bucket, error)

    def _park(self, offer: Offer, now: float) -> None:
        bucket, sequence = offer.bucket, offer.sequence
        parked = self._parked.setdefault(bucket, {})
        if sequence in parked:
            self.duplicates += 1
            return
        if not parked:
            self.holes += 1
        self.note_heads({bucket: sequence}, now)
        if self._parked_count < limits.feed_parked_events_max:
            parked[sequence] = self._item(offer)
            self._parked_count += 1

    def _unpark(self, bucket: Bucket) -> int:
        """Take what was parked and is next now; how many events."""
        parked = self._parked[bucket]
        first = sequence = self._taken[bucket] + 1
        while sequence in parked:
            self._take(bucket, sequence, parked.pop(sequence))
            sequence += 1
        self._parked_count -= sequence - first
        if not parked:
            del self._parked[bucket]
        return sequence - first


def _bucket(item: Item) -> Bucket:
    return item.bucket if isinstance(item, Unreadable) else item.position.bucket
