"""A verification from beginning to end, as the parent process runs it.

It holds one snapshot of each shard open while the workers read it, so live writes raise no alarm. Two shards' snapshots
are a moment apart; what does not fit between them is looked at again, as it is now, until it fits or time is up.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import asyncpg
from msgspec import Struct, field

from denizen import limits
from denizen.bulk.shards import Shards
from denizen.bulk.snapshots import Ownership, take_snapshots
from denizen.bulk.verification import reading
from denizen.bulk.verification.differences import Difference
from denizen.bulk.verification.messages import Found, Plan, Task, decode_for_parent
from denizen.bulk.verification.second_look import SecondLook
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.lanes import BROKEN
from denizen.events.places import read_served
from denizen.processes.frames import Hand, start_hands
from denizen.sharding.ids import BUCKETS, Bucket

_WORKER = "denizen.bulk.verification.worker"
_PAUSE_S = 0.2


class Outcome(Struct):
    """What was verified and what was found. `differences` are the first ones; `by_kind` counts all."""

    events: int = 0
    users: int = 0
    login_names: int = 0
    unsettled: int = 0
    buckets: int = 0
    shards: int = 0
    seconds: float = 0.0
    events_per_second: int = 0
    ok: bool = True
    by_kind: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)


class Progress(Protocol):
    """What watches a verification."""

    def begin(self, events: int) -> None:
        """So many events will be read."""
        ...

    def advance(self, events: int, differences: int) -> None:
        """So many were read so far."""
        ...


async def verify(data: Path, progress: Progress, *, workers: int) -> Outcome:
    """Verify the whole deployment. Raises `DenizenError` if it cannot be read."""
    began = time.monotonic()
    shards = Shards(Deployment.load(data), reading.SETTINGS)
    outcome = Outcome()
    try:
        await shards.start()
        snapshots, owned, tasks = await _prepare(shards, outcome)
        progress.begin(sum(task.events for task in tasks))
        owners = [str(owned.owners.get(bucket, "")) for bucket in range(BUCKETS)]
        plan = Plan(str(shards.deployment.directory), snapshots, owners)
        hands = await start_hands(workers, _WORKER, decode_for_parent, plan)
        try:
            second = await _drive(hands, tasks, shards, outcome, progress)
        finally:
            await asyncio.gather(*(hand.stop() for hand in hands))
        for shard in shards:
            await (await shard.connection()).execute("commit")
        _add(outcome, await second.run())
        _add(outcome, await _misplaced(shards))
    except (*BROKEN, asyncpg.PostgresError) as error:
        raise BadDeployment(f"a shard failed while it was read: {error}; see `denizen status`") from error
    finally:
        await shards.close()
    outcome.seconds = round(time.monotonic() - began, 3)
    outcome.events_per_second = round(outcome.events / outcome.seconds)
    outcome.ok = not outcome.by_kind
    return outcome


async def _prepare(shards: Shards, outcome: Outcome) -> tuple[dict[str, str], Ownership, list[Task]]:
    """A snapshot of each shard, and the buckets cut into tasks, the shards by turns."""
    owned = await take_snapshots(shards, reading.begin)
    outcome.shards = len(shards.map.shards)
    outcome.buckets = len(owned.owners)
    snapshots = {}
    by_shard = []
    for shard in shards:
        connection = await shard.connection()
        snapshots[str(shard.id)] = await connection.fetchval("select pg_export_snapshot()")
        by_shard.append(_tasks(str(shard.id), owned.buckets_of(shard.id), owned.heads))
    longest = max(map(len, by_shard), default=0)
    return snapshots, owned, [tasks[turn] for turn in range(longest) for tasks in by_shard if turn < len(tasks)]


async def _misplaced(shards: Shards) -> list[Difference]:
    """Buckets that are not served where the map has them, and that no move explains: they stay so for some seconds."""
    until = time.monotonic() + limits.verify_recheck_s
    while True:
        await shards.refresh()
        wrong = {bucket: shards.map.shard_of(Bucket(bucket)) for bucket in range(BUCKETS)}
        for shard in shards:
            served = await read_served(await shard.connection(), 0, BUCKETS - 1)
            for bucket, epoch in served.items():
                if wrong.get(bucket) == shard.id and shards.map.epoch_of(bucket) == epoch:
                    del wrong[bucket]
        if not wrong or time.monotonic() > until:
            detail = "not open here at the map's epoch"
            return [Difference("bucket_missing", bucket, detail, shard=str(shard)) for bucket, shard in wrong.items()]
        await asyncio.sleep(_PAUSE_S)


def _tasks(shard: str, owned: Sequence[int], heads: dict[int, int]) -> list[Task]:
    tasks: list[Task] = []
    for bucket in owned:
        events = heads.get(bucket, 0)
        last = tasks[-1] if tasks else None
        if last is not None and last.last == bucket - 1 and last.events + events <= limits.verify_task_events:
            tasks[-1] = Task(shard, last.first, bucket, last.events + events)
        else:
            tasks.append(Task(shard, bucket, bucket, events))
    return tasks


async def _drive(
    hands: Sequence[Hand], tasks: list[Task], shards: Shards, outcome: Outcome, progress: Progress
) -> SecondLook:
    waiting = list(reversed(tasks))
    second = SecondLook(shards)

    async def keep_busy(hand: Hand) -> None:
        while waiting:
            found: Found = await hand.ask(waiting.pop())
            outcome.events += found.events
            outcome.users += found.users
            outcome.login_names += found.login_names
            outcome.unsettled += found.unsettled
            _add(outcome, found.differences)
            second.add(found)
            progress.advance(outcome.events, sum(outcome.by_kind.values()))

    await asyncio.gather(*map(keep_busy, hands))
    return second


def _add(outcome: Outcome, differences: Sequence[Difference]) -> None:
    counts = Counter(outcome.by_kind)
    counts.update(difference.kind for difference in differences)
    outcome.by_kind = dict(counts)
    room = limits.verify_differences_max - len(outcome.differences)
    outcome.differences += differences[: max(room, 0)]
