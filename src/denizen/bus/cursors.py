"""How far each bucket of a shard is published, and how far it is known to go. Pure: no clock, no I/O."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from denizen.bus.messages import EventsMessage
from denizen.sharding.ids import Bucket


class Cursors:
    """A relay's place in every bucket of its shard.

    `published` is what the stream is known to hold. A bucket not in it was met for the first time: of its past only
    the newest `restart_events` are published, for consumers read the rest from PostgreSQL.
    """

    def __init__(self, published: Mapping[Bucket, int], restart_events: int) -> None:
        self._published = dict(published)
        self._restart_events = restart_events
        self._heads: dict[Bucket, int] = {}
        self._behind: dict[Bucket, None] = {}  # in the order in which they are read
        self._asked: dict[Bucket, int] = {}  # the heads of what `next` gave

    @property
    def behind(self) -> int:
        """Buckets with events that are not published yet."""
        return len(self._behind)

    @property
    def heads(self) -> dict[Bucket, int]:
        """The newest sequence known of each bucket that has events."""
        return {bucket: head for bucket, head in self._heads.items() if head}

    def lagging(self) -> dict[Bucket, int]:
        """How far the buckets are published that are not published up to their head."""
        return {bucket: self._published[bucket] for bucket in self._behind}

    def see(self, heads: Mapping[Bucket, int]) -> None:
        """Take what the shard says of all its buckets."""
        for bucket, head in heads.items():
            if self._heads.get(bucket) == head:
                continue  # most are as they were
            published = self._published.setdefault(bucket, max(0, head - self._restart_events))
            known = self._heads[bucket] = max(head, self._heads.get(bucket, 0))  # a hint may have come meanwhile
            if published < known:
                self._behind.setdefault(bucket)

    def hear(self, hint: Mapping[Bucket, int]) -> bool:
        """Take a hint about buckets of this shard; whether it brings news."""
        news = False
        for bucket, sequence in hint.items():
            if sequence > self._heads.get(bucket, sequence):
                self._heads[bucket] = sequence
                self._behind.setdefault(bucket)
                news = True
        return news

    def next(self, buckets_max: int) -> dict[Bucket, int]:
        """The buckets to read now, each with the sequence to read after; first those that wait longest."""
        chosen = list(islice(self._behind, buckets_max))
        self._asked = {bucket: self._heads[bucket] for bucket in chosen}
        for bucket in chosen:  # if one is still behind afterwards, the others come first
            del self._behind[bucket]
            self._behind[bucket] = None
        return {bucket: self._published[bucket] for bucket in chosen}

    def advance(self, rows: Sequence[Sequence[Any]]) -> None:
        """These rows, (bucket, sequence, …), are published."""
        for row in rows:
            bucket, sequence = row[0], row[1]
            self._published[bucket] = sequence
            if sequence >= self._heads[bucket]:
                self._heads[bucket] = sequence
                self._behind.pop(bucket, None)

    def settle(self) -> None:
        """What `next` gave last was read to its end and published, whatever hints had said was there."""
        for bucket, head in self._asked.items():
            if self._heads[bucket] == head:
                self._heads[bucket] = self._published[bucket]
                self._behind.pop(bucket, None)


def replay(published: dict[Bucket, int], message: EventsMessage) -> None:
    """Count a message found in the stream as published; what follows a hole is not: it is published again."""
    for event in message.events:
        if event.sequence == published.get(event.bucket, 0) + 1:
            published[event.bucket] = event.sequence
