"""One consumer's place in the feed: what comes next, each change once, in the order of its bucket.

It follows what the hub keeps. A bucket in which it is further back than that is `behind`: passed over in what the hub
keeps, and read from PostgreSQL, page by page, until it has reached what the hub had seen when the page was read. So a
consumer from the beginning of time and one at the newest change are the same thing, and the first becomes the second.

Nothing waits for a consumer: it asks for the next changes when it wants them. All that is held is its place.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType

import asyncpg

from denizen import limits
from denizen.changes.cursors import Place
from denizen.changes.hub import Hub
from denizen.events.reading import event_of
from denizen.events.tailing import read_after
from denizen.invariants import invariant
from denizen.sharding.ids import Bucket


class Follower:
    """Use it as an async context manager. `place` is where it begins, and then where it is.

    `types` are the event types wanted, all if None: others are passed over, and count as given.
    """

    def __init__(self, hub: Hub, place: Place, types: frozenset[str] | None = None) -> None:
        self.place = place
        self._hub = hub
        self._types = types
        self._at = 0
        self._behind: set[int] = set()
        self._older_next = False

    async def __aenter__(self) -> "Follower":
        await self._hub.join()
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.leave()

    async def next(self, changes_max: int, wait_s: float) -> list[bytes]:
        """The next changes as they are sent, as soon as there are any; at most `changes_max`; none after `wait_s`.

        Raises what ended the feed: `Closing` with the gateway. The place is then that of all that was given.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            if self._behind and self._older_next:  # they take turns, so that neither keeps the other waiting
                found = await self._older(changes_max) or self._kept(changes_max)
            else:
                found = self._kept(changes_max) or await self._older(changes_max)
            self._older_next = not self._older_next
            if found:
                return found
            left = deadline - loop.time()
            if left <= 0:
                return []
            if not self._behind:
                await self._hub.wait(self._at, left)

    @property
    def more(self) -> bool:
        """Whether there is more to give at once."""
        return bool(self._behind) or self._at < self._hub.end

    @property
    def lag_events(self) -> int:
        """Events known to be committed behind this place; those that are no change of a user count too."""
        first, sequences = self.place.first, self.place.sequences
        return sum(
            head - sequences[bucket - first]
            for bucket, head in self._hub.heads.items()
            if first <= bucket <= self.place.last and head > sequences[bucket - first]
        )

    def _begin(self) -> None:
        """Join what the hub keeps at its oldest change; where that is too new, be behind."""
        self._at = self._hub.start
        first, floor = self.place.first, self._hub.floor
        self._behind = {
            first + index for index, sequence in enumerate(self.place.sequences) if sequence < floor[first + index]
        }

    def _kept(self, changes_max: int) -> list[bytes]:
        """What the hub has, of buckets that are not behind."""
        self._hub.check()
        if self._at < self._hub.start:
            self._begin()
        first, last, sequences = self.place.first, self.place.last, self.place.sequences
        found: list[bytes] = []
        while self._at < self._hub.end and len(found) < changes_max:
            for change in self._hub.since(self._at, limits.changes_page_max):
                self._at += 1
                bucket = change.bucket
                if (
                    not first <= bucket <= last
                    or bucket in self._behind
                    or change.sequence <= sequences[bucket - first]
                ):
                    continue
                self._step(bucket, change.sequence)
                if self._wanted(change.type, change.payload):
                    found.append(change.payload)  # type: ignore[arg-type]  # what is wanted has one
                    if len(found) == changes_max:
                        break
        return found

    async def _older(self, changes_max: int) -> list[bytes]:
        """A page of what is behind, from one shard."""
        if not self._behind:
            return []
        hub, first = self._hub, self.place.first
        shard = hub.shards.map.shard_of(Bucket(min(self._behind)))
        chosen = [bucket for bucket in sorted(self._behind) if hub.shards.map.shard_of(Bucket(bucket)) == shard]
        after = {
            Bucket(bucket): self.place.sequences[bucket - first] for bucket in chosen[: limits.changes_read_buckets]
        }
        seen = {bucket: hub.taken[bucket] for bucket in after}  # before the read: it has at least these
        async with hub.reads:
            rows = await hub.shards.read(next(iter(after)), lambda connection: _page(connection, after, changes_max))
        found: list[bytes] = []
        for row in rows:
            event = event_of(row)
            self._step(event.position.bucket, event.position.sequence)
            payload = hub.encode(event)
            if self._wanted(event.type, payload):
                found.append(payload)  # type: ignore[arg-type]  # what is wanted has one
        self._behind -= {bucket for bucket in after if self.place.sequences[bucket - first] >= seen[bucket]}
        if not rows and self._behind.issuperset(after):  # a shard that does not have them: the map is about to change
            await asyncio.sleep(limits.fence_poll_max_s)
        return found

    def _wanted(self, kind: str, payload: bytes | None) -> bool:
        return payload is not None and (self._types is None or kind in self._types)

    def _step(self, bucket: int, sequence: int) -> None:
        at = bucket - self.place.first
        last = self.place.sequences[at]
        invariant(sequence == last + 1, "changes are given without holes", bucket=bucket, sequence=sequence, after=last)
        self.place.sequences[at] = sequence


async def _page(connection: asyncpg.Connection, after: Mapping[Bucket, int], events_max: int) -> list[asyncpg.Record]:
    return await read_after(connection, after, bucket_events_max=events_max, events_max=events_max)
