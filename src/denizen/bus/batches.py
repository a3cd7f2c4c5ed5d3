"""What a consumer of events is given: `Feed`, a port, and its batches.

`denizen.bus.feed.EventFeed` is the feed of the product. A test of a projection needs no servers: any object with these
methods is a feed.

Guarantees, for each bucket that the feed follows:

1. Events come in order of their sequences, without a hole and without a duplicate, from the start given. Of the types
   that a consumer does not read, it is only told that they were passed.
2. Every committed event comes, whatever happens to the bus: lost messages are read from PostgreSQL.
3. Nothing comes that was not committed.

Not guaranteed: any order between buckets, and that an event comes soon while PostgreSQL and the bus are both away.

The consumer's own checkpoint, saved in the transaction of its rows, is the only record of what was applied. There is
nothing to acknowledge: a consumer that starts again gives its checkpoints as the starts of a new feed, or `seek`s.
"""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from denizen.events.records import RecordedEvent
from denizen.sharding.ids import Bucket

Span = tuple[int, int]  # of a bucket: the sequence before it, and its last


class Batch(Struct, frozen=True):
    """Events that are next, and how far there is to go.

    `events` may be of many buckets, interleaved; those of one bucket are in order. `heads` is the newest sequence known
    of each followed bucket: a live, read-only view that goes on changing, complete after the first contact with every
    shard. A bucket's lag in events is its head less the last sequence applied.

    `spans` says what the batch covers of each bucket, events that were passed over included. None: just `events`.
    """

    events: list[RecordedEvent]
    heads: Mapping[Bucket, int]
    spans: Mapping[Bucket, Span] | None = None


class Feed(Protocol):
    """Where a projection gets its events from."""

    @property
    def silence_s(self) -> float:
        """How old the oldest of the heads is: the seconds since that shard last said how far its buckets are."""
        ...

    async def next_batch(self, max_events: int, max_wait_s: float) -> Batch:
        """The next events, at most `max_events`; as soon as there are some, else an empty batch after `max_wait_s`.

        Raises `UnknownEvent` when the next event of a bucket has a type or schema that this program does not know,
        once everything before it was given; asked again, it raises again. `seek` past it to go on without it.
        One caller at a time. Cancelling a call loses nothing.
        """
        ...

    def seek(self, starts: Mapping[Bucket, int]) -> None:
        """Continue each of these buckets after the given sequence, backwards or forwards, forgetting what waits."""
        ...
