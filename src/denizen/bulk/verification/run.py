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
from denizen.bulk.verification import reading
from denizen.bulk.verification.differences import Difference
from denizen.bulk.verification.messages import Found, Plan, Task, decode_for_parent
from denizen.bulk.verification.second_look import SecondLook
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment
from denizen.events.lanes import BROKEN
from denizen.workers.frames import Hand, start_hands

_WORKER = "denizen.bulk.verification.worker"


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
    outcome = Outcome(shards=len(shards.deployment.record.shards))
    try:
        await shards.start()
        snapshots, tasks = await _prepare(shards, outcome)
        progress.begin(sum(task.events for task in tasks))
        plan = Plan(str(shards.deployment.directory), snapshots)
        hands = await start_hands(workers, _WORKER, decode_for_parent, plan)
        try:
            second = await _drive(hands, tasks, shards, outcome, progress)
        finally:
            await asyncio.gather(*(hand.stop() for hand in hands))
        for shard in shards:
            await (await shard.connection()).execute("commit")
        _add(outcome, await second.run())
    except (*BROKEN, asyncpg.PostgresError) as error:
        raise BadDeployment(f"a shard failed while it was read: {error}; see `denizen status`") from error
    finally:
        await shards.close()
    outcome.seconds = round(time.monotonic() - began, 3)
    outcome.events_per_second = round(outcome.events / outcome.seconds)
    outcome.ok = not outcome.by_kind
    return outcome


async def _prepare(shards: Shards, outcome: Outcome) -> tuple[dict[str, str], list[Task]]:
    """A snapshot of each shard, and the buckets cut into tasks, the shards by turns."""
    snapshots = {}
    by_shard = []
    for shard in shards:
        connection = await shard.connection()
        await reading.begin(connection)
        snapshots[str(shard.id)] = await connection.fetchval("select pg_export_snapshot()")
        rows = await connection.fetch("select bucket, epoch, state, head from denizen.buckets order by bucket")
        there = {bucket: head for bucket, epoch, state, head in rows if state in ("open", "fenced")}
        epochs = {bucket: epoch for bucket, epoch, _, _ in rows}
        owned = shards.map.buckets_of(shard.id)
        outcome.buckets += len(owned)
        _add(
            outcome,
            [
                Difference("bucket_missing", bucket, "not open here at the map's epoch", shard=str(shard.id))
                for bucket in owned
                if bucket not in there or epochs[bucket] != shards.map.epoch_of(bucket)
            ],
        )
        by_shard.append(_tasks(str(shard.id), owned, there))
    longest = max(map(len, by_shard), default=0)
    return snapshots, [tasks[turn] for turn in range(longest) for tasks in by_shard if turn < len(tasks)]


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
