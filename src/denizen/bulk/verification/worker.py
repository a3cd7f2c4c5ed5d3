"""A worker process of a verification: folds the buckets it is given and compares them with their rows."""

import gc
from pathlib import Path
from typing import Any

import asyncpg

from denizen import limits
from denizen.bulk.shards import Shards
from denizen.bulk.verification import reading
from denizen.bulk.verification.differences import Difference
from denizen.bulk.verification.fold import BucketFold, Elsewhere, NamePlace, Unsettled
from denizen.bulk.verification.messages import Found, Plan, Ready, Task, decode_for_worker
from denizen.bulk.verification.reading import Groups
from denizen.deployment.layout import Deployment
from denizen.errors import DenizenError
from denizen.events.lanes import BROKEN
from denizen.processes.frames import Trouble, pipes, read_frame
from denizen.processes.parenthood import run_worker
from denizen.sharding.ids import ShardId
from denizen.sharding.names_of import LoginNamesOf


class Worker:
    """Everything that a worker has; `open` it, then give it tasks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._shards = Shards(Deployment.load(Path(plan.data)), reading.SETTINGS)
        self._login_names_of = LoginNamesOf(self._shards.hash_seed, self._shards.kinds)

    async def open(self) -> None:
        """Take every shard's snapshot."""
        await self._shards.refresh()
        for shard, snapshot in self._plan.snapshots.items():
            await reading.begin(await self._shards[ShardId(shard)].connection(), snapshot)

    async def close(self) -> None:
        """Close every connection."""
        await self._shards.close()

    async def verify(self, task: Task) -> Found:
        """Fold and compare the buckets of a task."""
        connection = await self._shards[ShardId(task.shard)].connection()
        span = (task.first, task.last)
        found = Found(0, 0, 0, 0, [], [], {}, {})
        unsettled = await self._unsettled(connection, span, found)
        rows = {row[0]: row[1:] for row in await connection.fetch(reading.BUCKETS, *span)}
        events = await Groups.open(connection, reading.EVENTS, *span)
        users = await Groups.open(connection, reading.USERS, *span)
        names = await Groups.open(connection, reading.NAMES, *span)
        elsewhere: list[Elsewhere] = []
        for bucket in range(task.first, task.last + 1):
            fold = BucketFold(bucket, self._login_names_of)
            for row in await events.of(bucket):
                fold.event(row)
            if bucket in rows:
                fold.bucket_row(*rows[bucket])
            user_rows = await users.of(bucket)
            for row in user_rows:
                fold.user_row(row)
            fold.users_end()
            name_rows = await names.of(bucket)
            for row in name_rows:
                fold.name_row(row, unsettled)
            fold.names_end()
            found.events += fold.events
            found.users += len(user_rows)
            found.login_names += len(name_rows)
            found.differences += fold.differences
            if fold.held_elsewhere:
                found.held[bucket] = fold.held_elsewhere
            elsewhere += fold.elsewhere
            if len(elsewhere) >= limits.verify_names_at_once:
                await self._look_up(elsewhere, found)
                elsewhere = []
        await self._look_up(elsewhere, found)
        for bucket, kind, value in unsettled:
            found.differences.append(
                Difference("unsettled_differs", bucket, "there is no such login name", login_name=f"{kind}:{value}")
            )
        for bucket, user_id, version in await connection.fetch(reading.DANGLING, *span):
            found.differences.append(
                Difference("idempotency_dangling", bucket, f"version {version} is not there", user_id)
            )
        return found

    async def _unsettled(
        self, connection: asyncpg.Connection, span: tuple[int, int], found: Found
    ) -> dict[NamePlace, Unsettled]:
        rows = {}
        for bucket, kind, value, state, reservation, old in await connection.fetch(
            reading.UNSETTLED, *span, limits.verify_stuck_s
        ):
            rows[bucket, kind, value] = (state, reservation)
            found.unsettled += 1
            if old:
                detail = f"unsettled for more than {limits.verify_stuck_s} s"
                found.differences.append(Difference("name_stuck", bucket, detail, login_name=value))
        return rows

    async def _look_up(self, names: list[Elsewhere], found: Found) -> None:
        """The rows of names in other buckets, on whichever shard they are."""
        groups: dict[Any, list[Elsewhere]] = {}
        for name in sorted(names, key=_place):
            owner = self._plan.owners[name.bucket]
            if owner:
                groups.setdefault(ShardId(owner), []).append(name)
                found.expected[name.bucket] = found.expected.get(name.bucket, 0) + 1
            else:
                found.suspects.append(name)
        for shard, group in groups.items():
            connection = await self._shards[shard].connection()
            mismatches = await connection.fetch(
                reading.MISMATCHES,
                " ".join([str(name.bucket) for name in group]),
                " ".join([str(name.kind) for name in group]),
                "\x01".join([name.value for name in group]),
                " ".join([str(name.user_id) for name in group]),
            )
            for ordinal, same_user in mismatches:
                name = group[ordinal - 1]
                found.expected[name.bucket] -= 1
                if not same_user:
                    found.suspects.append(name)


def _place(name: Elsewhere) -> tuple[int, int, str]:
    return name.bucket, name.kind, name.value


async def serve() -> None:
    """Work until the parent closes the pipe."""
    reader, send = await pipes()
    first = await read_frame(reader)
    if first is None:
        return
    plan = decode_for_worker(first)
    if not isinstance(plan, Plan):
        raise TypeError("the first message is the plan")
    worker = Worker(plan)
    try:
        await worker.open()
        send(Ready())
        while (content := await read_frame(reader)) is not None:
            task = decode_for_worker(content)
            if isinstance(task, Task):
                send(await worker.verify(task))
                gc.collect()
    except DenizenError as error:
        send(Trouble(error.code, error.detail))
    except (*BROKEN, asyncpg.PostgresError) as error:
        send(Trouble("unavailable", f"a shard failed: {type(error).__name__}: {error}"))
    finally:
        await worker.close()


def main() -> None:
    """The process."""
    gc.disable()  # rows have no cycles; what else there is, is collected between tasks
    run_worker(serve)


if __name__ == "__main__":
    main()
