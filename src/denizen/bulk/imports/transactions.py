"""One transaction of an import on one shard, and what is done when it does not go through.

    copy state and names → lock the buckets in order, compare epoch and state → copy the events, numbered from the
    heads → heads and digests

A transaction takes a few whole buckets and does everything that is to be done in them, of all steps (see steps.py): the
more rows go into a bucket at a time, the less its lock, its head and its pages in the indexes cost for each.

What needs no sequence comes before the locks, so that online writers wait for the rest only; a bucket that turns out
not to be writable undoes it. Whoever wants the very same name at the same time waits at the primary key.

It is optimistic: names and streams are not looked up first, for in a new import next to all of them are free and new.
The primary keys refuse what is not; then each step is done alone, everything of it is looked up, what is decided by
that is left out, and the rest is tried again. The same look-up makes it safe to repeat a transaction whose commit got
lost.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol

import asyncpg

from denizen import limits
from denizen.bulk.imports.rows import COLUMNS, HEADER, TRAILER, event_head
from denizen.bulk.shards import Patience, Shard, Shards
from denizen.errors import Unavailable
from denizen.events.lanes import BROKEN, PASSING
from denizen.events.places import read_served

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


class Step(Protocol):
    """One of the three steps; items have a `bucket`."""

    def events(self, items: Sequence[Any]) -> list[bytes]:
        """The events of these items, in order: rows without sequence and moment."""
        ...

    def copies(self, items: Sequence[Any], moment: int) -> Iterator[tuple[str, list[bytes]]]:
        """Rows of other tables, before the locks; `moment` in microseconds since 2000."""
        ...

    async def change(self, connection: asyncpg.Connection, items: Sequence[Any]) -> None:
        """What else the transaction does, under the locks; `StaleError` if it cannot."""
        ...

    async def look(self, connection: asyncpg.Connection, items: Sequence[Any]) -> list[Any]:
        """Compare with what the shard has; decide what is decided by that; the items that are still to be written."""
        ...

    def done(self, items: Sequence[Any]) -> None:
        """These were committed."""
        ...


Work = tuple[Step, Sequence[Any]]
Part = tuple[Step, dict[int, list[Any]]]  # items by bucket
Do = Callable[[Shard, list[Part]], Awaitable[list[Work]]]  # gives back the items whose buckets are not there


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
    """Runs steps for many items over all shards."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._pace = Pace()
        self._gate = asyncio.Semaphore(limits.import_transactions_at_once)

    async def run(self, *works: Work, look_first: bool) -> None:
        """Do all of this, no matter in which order; `look_first`: expect that much of it exists already.

        What moves meanwhile is followed; `Unavailable` if a move takes too long.
        """
        await self._everywhere(works, partial(self._together, look=look_first))

    async def look(self, *works: Work) -> None:
        """Only compare, and decide what is decided by that; otherwise like `run`."""
        await self._everywhere(works, self._look)

    async def _everywhere(self, works: Iterable[Work], do: Do) -> None:
        deadline = time.monotonic() + limits.import_shard_wait_s
        parts = _parts(works)
        while parts:
            owners, ids = self._shards.map.owners, self._shards.map.shards
            places: defaultdict[int, list[int]] = defaultdict(list)
            for bucket in sorted(set(chain.from_iterable(groups for _, groups in parts))):
                places[owners[bucket]].append(bucket)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._on_shard(self._shards[ids[owner]], parts, buckets, do))
                    for owner, buckets in places.items()
                ]
            parts = _parts(work for task in tasks for work in task.result())
            if parts:
                if time.monotonic() > deadline:
                    bucket = next(iter(parts[0][1]))
                    raise Unavailable(f"bucket {bucket} is moving and takes too long; resume later")
                await asyncio.sleep(limits.fence_poll_s)
                await self._shards.refresh()

    async def _on_shard(self, shard: Shard, parts: list[Part], buckets: list[int], do: Do) -> list[Work]:
        """The items whose buckets are not here now."""
        elsewhere: list[Work] = []
        start = 0
        while start < len(buckets):
            end, count = start, 0
            while end < len(buckets) and count < self._pace.events:
                count += sum([len(groups.get(buckets[end], ())) for _, groups in parts])
                end += 1
            chosen = buckets[start:end]
            mine = [(step, {bucket: groups[bucket] for bucket in chosen if bucket in groups}) for step, groups in parts]
            async with self._gate:
                elsewhere += await do(shard, [part for part in mine if part[1]])
            start = end
        return elsewhere

    async def _look(self, shard: Shard, parts: list[Part]) -> list[Work]:
        connection = await shard.connection()
        return [(step, (await _look_up(connection, step, groups))[1]) for step, groups in parts]

    async def _together(self, shard: Shard, parts: list[Part], *, look: bool) -> list[Work]:
        """All parts in one transaction; if it does not go through, one after the other."""
        if not look:
            try:
                await self._transact(await shard.connection(), parts)
            except NotOpenError:
                pass
            except (asyncpg.UniqueViolationError, StaleError):
                look = len(parts) == 1  # no need to try that once more
            except (*BROKEN, *PASSING) as error:
                look = True  # maybe it is done
                if isinstance(error, BROKEN):
                    await shard.drop()
            else:
                return []
        return [(step, await self._alone(shard, step, groups, look=look)) for step, groups in parts]

    async def _alone(self, shard: Shard, step: Step, waiting: dict[int, list[Any]], *, look: bool) -> list[Any]:
        patience = Patience(shard.id)
        elsewhere: list[Any] = []
        while waiting:
            try:
                connection = await shard.connection()
                if look:
                    waiting, moved = await _look_up(connection, step, waiting)
                    elsewhere += moved
                    look = False
                if waiting:
                    await self._transact(connection, [(step, waiting)])
                return elsewhere
            except NotOpenError as error:
                elsewhere += chain.from_iterable(waiting.pop(bucket) for bucket in error.buckets)
            except (asyncpg.UniqueViolationError, StaleError):
                look = True
            except (*BROKEN, *PASSING) as error:
                if isinstance(error, BROKEN):
                    await shard.drop()
                look = True
                await patience.wait(error)
        return elsewhere

    async def _transact(self, connection: asyncpg.Connection, parts: list[Part]) -> None:
        flat = [(step, list(chain.from_iterable(items.values()))) for step, items in parts]
        buckets = sorted(set(chain.from_iterable(items for _, items in parts)))
        events = {
            bucket: [event for step, items in parts if bucket in items for event in step.events(items[bucket])]
            for bucket in buckets
        }
        async with connection.transaction():
            moment = _micros(await connection.fetchval("select clock_timestamp()"))
            copies: defaultdict[str, list[bytes]] = defaultdict(list)
            for step, items in flat:
                for table, rows in step.copies(items, moment):
                    copies[table] += rows
            for table, rows in copies.items():
                await _copy(connection, table, rows)
            heads = await self._lock(connection, buckets)
            locked = time.monotonic()
            for step, items in flat:
                await step.change(connection, items)
            await _copy(connection, "events", _numbered(events, heads, moment))
            before = [heads[bucket] for bucket in buckets]
            after = [heads[bucket] + len(events[bucket]) for bucket in buckets]
            await connection.execute(_ADVANCE, buckets, before, after)
        self._pace.held(time.monotonic() - locked)
        for step, items in flat:
            step.done(items)

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


async def _look_up(
    connection: asyncpg.Connection, step: Step, groups: Mapping[int, list[Any]]
) -> tuple[dict[int, list[Any]], list[Any]]:
    """What `step.look` says of the items whose buckets are served here: those to be written; and the other items."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        served = await read_served(connection, min(groups), max(groups))
        elsewhere = [item for bucket, items in groups.items() if bucket not in served for item in items]
        here = [item for bucket, items in groups.items() if bucket in served for item in items]
        return _by_bucket(await step.look(connection, here)), elsewhere


def _by_bucket(items: Iterable[Any]) -> dict[int, list[Any]]:
    """The items of each bucket."""
    groups: defaultdict[int, list[Any]] = defaultdict(list)
    for item in items:
        groups[item.bucket].append(item)
    return groups


def _parts(works: Iterable[Work]) -> list[Part]:
    """What is to be done by each step that has anything to do."""
    items: dict[Step, list[Sequence[Any]]] = {}
    for step, its in works:
        if its:
            items.setdefault(step, []).append(its)
    return [(step, _by_bucket(chain.from_iterable(its))) for step, its in items.items()]


def _numbered(events: Mapping[int, list[bytes]], heads: Mapping[int, int], moment: int) -> list[bytes]:
    """The rows of the events with their sequences."""
    pieces = []
    for bucket, tails in events.items():
        for sequence, tail in enumerate(tails, heads[bucket] + 1):
            pieces.append(event_head(12, 8, sequence, 8, moment))
            pieces.append(tail)
    return pieces


async def _copy(connection: asyncpg.Connection, table: str, pieces: list[bytes]) -> None:
    content = b"".join((HEADER, *pieces, TRAILER))
    await connection.copy_to_table(
        table, schema_name="denizen", columns=COLUMNS[table], source=memoryview(content), format="binary"
    )


def _micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
