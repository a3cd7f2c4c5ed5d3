"""Many writers at once: dense positions, one winner, and nobody held up by a stopped one."""

import asyncio
import os
import random
import signal
import sys
import time

import asyncpg

from denizen import limits
from denizen.events.reading import read_bucket
from denizen.events.records import Append, Outcome, RecordedEvent, Result
from denizen.events.store import ShardStore
from denizen.sharding.ids import Bucket, ShardId
from denizen.testing.postgres import Database

from .appends import EPOCH, registration, rename

BUCKETS = 3
WRITERS = 64
ROUNDS = 8


async def test_positions_are_dense_and_in_the_order_of_commit_under_64_writers(
    shard: Database, store: ShardStore, connection: asyncpg.Connection
) -> None:
    """With random pauses, commands that fail, groups undone by a killed backend; and a reader that follows live."""
    other = ShardStore(ShardId("s1"), shard.connect_args, lanes=2)
    await other.start()
    ended = asyncio.Event()
    followers = [asyncio.create_task(follow(store, Bucket(bucket), ended)) for bucket in range(BUCKETS)]
    killer = asyncio.create_task(kill_backends(connection, ended))
    results = await asyncio.gather(*(write(random.choice((store, other)), number) for number in range(WRITERS)))
    ended.set()
    live = await asyncio.gather(*followers)
    await killer
    await other.stop()
    acknowledged = [pair for mine in results for pair in mine]
    for bucket in range(BUCKETS):
        stored = await read_bucket(connection, Bucket(bucket), after=0, limit=10_000)
        assert [event.position.sequence for event in stored] == list(range(1, len(stored) + 1))
        assert live[bucket] == stored  # what came live, concatenated, is the stored order
        assert {(event.command_id, event.version) for event in stored} == {
            (append.command_id, number)
            for append, outcome in acknowledged
            if append.bucket == bucket
            for number in range(append.expected + 1, outcome.version + 1)
        }
    assert len({event.position for events in live for event in events}) == sum(map(len, live))


async def write(store: ShardStore, number: int) -> list[tuple[Append, Outcome]]:
    done = []
    for turn in range(ROUNDS):
        await asyncio.sleep(random.random() * 0.03)
        user = registration(f"u{number}.{turn}@example.com", bucket=number % BUCKETS, events=random.randint(1, 3))
        taken = registration("taken@example.com", bucket=number % BUCKETS)
        change = rename(user, len(user.events), "again")
        conflict = rename(user, 17, "never")
        for append in (user, taken, change, conflict):
            outcome = await store.append(append, EPOCH)
            if outcome.result in (Result.DONE, Result.REPEATED):
                done.append((append, outcome))
            else:
                assert append in (taken, conflict)
    return done


async def follow(store: ShardStore, bucket: Bucket, ended: asyncio.Event) -> list[RecordedEvent]:
    seen: list[RecordedEvent] = []
    while True:
        last = ended.is_set()
        seen += await store.read(
            lambda connection: read_bucket(connection, bucket, after=len(seen), limit=random.randint(1, 50))  # noqa: B023 - awaited at once
        )
        if last and len(seen) == await store.read(
            lambda connection: connection.fetchval("select head from denizen.buckets where bucket = $1", bucket)
        ):
            return seen
        await asyncio.sleep(0.002)


async def kill_backends(connection: asyncpg.Connection, ended: asyncio.Event) -> None:
    written, least = "select coalesce(sum(head), 0) from denizen.buckets", 0
    while not ended.is_set():
        if await connection.fetchval(written) < least:
            await asyncio.sleep(0.005)
            continue
        least = await connection.fetchval(written) + 100  # let some of them get through in between
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query like '%denizen.append(%' and pid <> pg_backend_pid()"
            " order by random() limit 1"
        )


async def test_of_a_hundred_racers_for_a_version_exactly_one_wins(shard: Database, store: ShardStore) -> None:
    other = ShardStore(ShardId("s1"), shard.connect_args, lanes=2)
    await other.start()
    user = registration("ann@example.com")
    await store.append(user, EPOCH)
    for version in range(1, 4):
        outcomes = await asyncio.gather(
            *((store, other)[n % 2].append(rename(user, version, f"racer {n}"), EPOCH) for n in range(100))
        )
        results = [outcome.result for outcome in outcomes]
        assert results.count(Result.DONE) == 1
        assert results.count(Result.VERSION_CONFLICT) == 99
        assert {outcome.version for outcome in outcomes} == {version + 1}
    await other.stop()


async def test_of_a_hundred_racers_for_a_login_name_exactly_one_wins(shard: Database, store: ShardStore) -> None:
    other = ShardStore(ShardId("s1"), shard.connect_args, lanes=2)
    await other.start()
    outcomes = await asyncio.gather(
        *((store, other)[n % 2].append(registration("ann@example.com"), EPOCH) for n in range(100))
    )
    await other.stop()
    results = [outcome.result for outcome in outcomes]
    assert results.count(Result.DONE) == 1
    assert results.count(Result.NAME_TAKEN) == 99


WRITER = """
import asyncio, sys
from denizen.events.store import ShardStore
from denizen.events.sealing import use
from denizen.testing.gateway import KEYRING
from events.appends import EPOCH, registration

use(KEYRING)
async def main() -> None:
    store = ShardStore("s1", {arguments!r}, lanes=1)
    await store.start()
    number = 0

    async def write(client: int) -> None:
        nonlocal number
        while True:
            number += 1
            await store.append(registration(f"w{{number}}@example.com", bucket=number % 5, events=20), EPOCH)
            if number == 1000:
                print("going", flush=True)

    await asyncio.gather(*map(write, range(250)))

asyncio.run(main())
"""


async def test_a_stopped_writer_with_an_open_group_blocks_nobody(shard: Database, store: ShardStore) -> None:
    """Each time it is stopped somewhere in the middle of its stream of large groups on the same buckets."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER.format(arguments=shard.connect_args),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"going\n"
        for turn in range(20):
            await asyncio.sleep(random.random() * 0.02)
            process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            outcomes = await asyncio.gather(
                *(store.append(registration(f"s{turn}.{b}@example.com", bucket=b), EPOCH) for b in range(5))
            )
            assert {outcome.result for outcome in outcomes} == {Result.DONE}
            assert time.monotonic() - started < limits.lock_timeout_ms / 1000
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        await process.wait()
