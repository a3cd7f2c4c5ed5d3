"""One consumer's place in the feed: what comes next, each change once, in the order of its bucket.

It follows what the hub keeps. A bucket in which it is further back than that is `behind`: passed over in what the hub
keeps, and read from PostgreSQL, page by page, until it has reached what the hub had seen when the page was read. So a
consumer from the beginning of time and one at the newest change are the same thing, and the first becomes the second.

Nothing waits for a consumer: it asks for the next changes when it wants them. All that is held is its place.
"""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

import asyncpg
import structlog

from denizen import limits
from denizen.changes.cursors import Place
from denizen.changes.hub import Hub
from denizen.errors import DenizenError, Unavailable
from denizen.events.codec import UnknownEvent
from denizen.events.reading import event_of
from denizen.events.tailing import read_after
from denizen.invariants import invariant
from denizen.sharding.ids import Bucket, ShardId

_log = structlog.get_logger()
TROUBLE: Final = (DenizenError, asyncpg.PostgresError, OSError, TimeoutError)


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
        self._avoided: dict[ShardId, float] = {}  # shards that did not answer, and until when they are left alone

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
        """A page of what is behind, from one shard; a shard that does not answer lets the others go first."""
        chosen = self._chosen()
        if chosen is None:
            return []
        shard, after = chosen
        if after:
            seen = {bucket: self._hub.taken[bucket] for bucket in after}  # before the read: it has at least these
            try:
                async with self._hub.reads:
                    rows = await self._hub.shards.read(next(iter(after)), lambda c: _page(c, after, changes_max))
            except TROUBLE as error:
                _log.info("changes_without_shard", shard=shard, error=str(error) or type(error).__name__)
                self._avoided[shard] = asyncio.get_running_loop().time() + limits.changes_avoid_s
            else:
                found = self._taken_of(rows)
                now = {bucket: self.place.sequences[bucket - self.place.first] for bucket in after}
                self._behind -= {bucket for bucket in after if now[bucket] >= seen[bucket]}
                if now != after or not self._behind.issuperset(after):
                    return found
        await asyncio.sleep(limits.fence_poll_max_s)  # the map is about to say where these are, or a shard comes back
        return []

    def _chosen(self) -> tuple[ShardId, dict[Bucket, int]] | None:
        """The next shard to read, and which buckets after what; none of them while all those shards are away."""
        if not self._behind:
            return None
        now, first = asyncio.get_running_loop().time(), self.place.first
        shard_of = self._hub.shards.map.shard_of
        behind = sorted(self._behind)
        answering = (shard_of(Bucket(each)) for each in behind if self._avoided.get(shard_of(Bucket(each)), 0.0) <= now)
        shard = next(answering, None)
        if shard is None:
            return shard_of(Bucket(behind[0])), {}
        chosen = [bucket for bucket in behind if shard_of(Bucket(bucket)) == shard][: limits.changes_read_buckets]
        return shard, {Bucket(bucket): self.place.sequences[bucket - first] for bucket in chosen}

    def _taken_of(self, rows: Sequence[asyncpg.Record]) -> list[bytes]:
        """What is next of these rows. A shard that a bucket has left may have a part of it only: that is not next."""
        found: list[bytes] = []
        for row in rows:
            if row["sequence"] != self.place.sequences[row["bucket"] - self.place.first] + 1:
                continue
            try:
                event = event_of(row)
            except UnknownEvent as error:
                raise Unavailable(f"a newer program has written what this gateway does not know: {error}") from error
            self._step(event.position.bucket, event.position.sequence)
            payload = self._hub.encode(event)
            if self._wanted(event.type, payload):
                found.append(payload)  # type: ignore[arg-type]  # what is wanted has one
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
