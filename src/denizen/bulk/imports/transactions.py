"""One transaction of an import on one shard, and what is done when it does not go through.

    copy state and names → lock the buckets in order, compare epoch and state → copy the events, numbered from the
    heads → heads and digests

What needs no sequence comes before the locks, so that online writers wait for the rest only; a bucket that turns out
not to be writable undoes it. Whoever wants the very same name at the same time waits at the primary key.

It is optimistic: names and streams are not looked up first, for in a new import next to all of them are free and new.
The primary keys refuse what is not; then everything of this transaction is looked up, what is decided by that is left
out, and the rest is tried again. The same look-up makes it safe to repeat a transaction whose commit got lost.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, Protocol

import asyncpg

from denizen import limits
from denizen.bulk.imports.rows import EVENT_COLUMNS, HEADER, TRAILER, event_head
from denizen.bulk.shards import Patience, Shard, Shards
from denizen.errors import Unavailable
from denizen.events.lanes import BROKEN, PASSING
from denizen.events.places import read_served

Copied = tuple[str, Sequence[str], bytes]  # a table, its columns, its rows

_LOCK: Final = """
    select bucket, epoch, state, head from denizen.buckets where bucket = any ($1::smallint[])
    order by bucket for update
"""
_ADVANCE: Final = """
    with news as materialized (
        select n.bucket, n.head, (
            select bit_xor(denizen.event_hash(e)) from denizen.events e
            where e.bucket = n.bucket and e.sequence > n.since and e.sequence <= n.head
        ) as digest
        from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as n (bucket, since, head)
    )
    update denizen.buckets b set head = n.head, digest = b.digest # n.digest from news n where b.bucket = n.bucket
"""
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class NotOpenError(Exception):
    """Some buckets are not writable here at the map's epoch."""

    def __init__(self, buckets: set[int]) -> None:
        super().__init__(f"{len(buckets)} buckets")
        self.buckets = buckets


class StaleError(Exception):
    """What the step expected is not so any more: look again."""


class Prepared(Protocol):
    """The rows of a transaction, packed before the locks are taken."""

    events: list[tuple[int, bytes]]  # bucket and tail, in the order of buckets

    def copies(self, moment: int) -> Sequence[Copied]:
        """Rows of other tables, before the locks; `moment` in microseconds since 2000."""
        ...

    async def change(self, connection: asyncpg.Connection) -> None:
        """What else the transaction does, under the locks; `StaleError` if it cannot."""
        ...


class Step(Protocol):
    """One of the three steps; items have a `bucket`. `cost`: of an item, in events."""

    cost: int

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """Pack the rows of these items, which are in the order of buckets."""
        ...

    async def look(self, connection: asyncpg.Connection, items: Sequence[Any]) -> list[Any]:
        """Compare with what the shard has; decide what is decided by that; the items that are still to be written."""
        ...

    def done(self, items: Sequence[Any]) -> None:
        """These were committed."""
        ...


class Pace:
    """How much goes into one transaction: less while its locks are held for too long, for online writers wait."""

    def __init__(self) -> None:
        self.events = limits.import_transaction_events_max

    def held(self, seconds: float) -> None:
        """A transaction held its locks for so long."""
        if seconds > limits.import_locks_held_s:
            self.events = max(self.events // 2, limits.import_transaction_events_min)
        elif seconds < limits.import_locks_held_s / 3:
            self.events = min(self.events * 2, limits.import_transaction_events_max)


class Transactions:
    """Runs one step for many items over all shards. `look_first`: expect that much of it exists already."""

    def __init__(self, shards: Shards, step: Step, pace: Pace, *, look_first: bool) -> None:
        self._shards = shards
        self._step = step
        self._look_first = look_first
        self._pace = pace

    async def run(self, items: Sequence[Any]) -> None:
        """Write all items. What moves meanwhile is followed; `Unavailable` if a move takes too long."""
        deadline = time.monotonic() + limits.import_shard_wait_s
        while items:
            groups: dict[int, list[Any]] = {}
            owners, ids = self._shards.map.owners, self._shards.map.shards
            for item in sorted(items, key=attrgetter("bucket")):
                owner = owners[item.bucket]
                if owner in groups:
                    groups[owner].append(item)
                else:
                    groups[owner] = [item]
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._on_shard(self._shards[ids[owner]], its)) for owner, its in groups.items()
                ]
            items = [item for task in tasks for item in task.result()]
            if items:
                if time.monotonic() > deadline:
                    raise Unavailable(f"bucket {items[0].bucket} is moving and takes too long; resume later")
                await asyncio.sleep(limits.fence_poll_s)
                await self._shards.refresh()

    async def _on_shard(self, shard: Shard, items: list[Any]) -> list[Any]:
        """The items whose buckets are not here now."""
        elsewhere = []
        start = 0
        while start < len(items):
            end = start + self._pace.events // self._step.cost
            elsewhere += await self._batch(shard, items[start:end])
            start = end
        return elsewhere

    async def _batch(self, shard: Shard, items: list[Any]) -> list[Any]:
        look = self._look_first
        patience = Patience(shard.id)
        elsewhere: list[Any] = []
        while items:
            try:
                connection = await shard.connection()
                if look:
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        served = await read_served(connection, items[0].bucket, items[-1].bucket)
                        elsewhere += [item for item in items if item.bucket not in served]
                        here = [item for item in items if item.bucket in served]
                        items = list(await self._step.look(connection, here))
                    look = False
                if items:
                    await self._transact(connection, items)
                    self._step.done(items)
                return elsewhere
            except NotOpenError as error:
                elsewhere += [item for item in items if item.bucket in error.buckets]
                items = [item for item in items if item.bucket not in error.buckets]
            except (asyncpg.UniqueViolationError, StaleError):
                look = True
            except (*BROKEN, *PASSING) as error:
                if isinstance(error, BROKEN):
                    await shard.drop()
                look = True
                await patience.wait(error)
        return elsewhere

    async def _transact(self, connection: asyncpg.Connection, items: list[Any]) -> None:
        prepared = self._step.prepare(items)
        buckets = sorted({item.bucket for item in items})
        async with connection.transaction():
            moment = _micros(await connection.fetchval("select clock_timestamp()"))
            for table, columns, content in prepared.copies(moment):
                await _copy(connection, table, columns, content)
            heads = await self._lock(connection, buckets)
            locked = time.monotonic()
            await prepared.change(connection)
            before = [heads[bucket] for bucket in buckets]
            await _copy(connection, "events", EVENT_COLUMNS, _numbered(prepared.events, heads, moment))
            await connection.execute(_ADVANCE, buckets, before, [heads[bucket] for bucket in buckets])
        self._pace.held(time.monotonic() - locked)

    async def _lock(self, connection: asyncpg.Connection, buckets: list[int]) -> dict[int, int]:
        bucket_map = self._shards.map
        heads = {
            bucket: head
            for bucket, epoch, state, head in await connection.fetch(_LOCK, buckets)
            if state == "open" and epoch == bucket_map.epoch_of(bucket)
        }
        if len(heads) < len(buckets):
            raise NotOpenError(set(buckets) - heads.keys())
        return heads


def _numbered(events: list[tuple[int, bytes]], heads: dict[int, int], moment: int) -> bytes:
    """The rows of the events with their sequences; `heads` move on."""
    parts = [HEADER]
    for bucket, tail in events:
        head = heads[bucket] + 1
        heads[bucket] = head
        parts.append(event_head(12, 8, head, 8, moment))
        parts.append(tail)
    parts.append(TRAILER)
    return b"".join(parts)


async def _copy(connection: asyncpg.Connection, table: str, columns: Sequence[str], content: bytes) -> None:
    await connection.copy_to_table(
        table, schema_name="denizen", columns=columns, source=memoryview(content), format="binary"
    )


def _micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
