"""Appends over broken, frozen and lost connections: never lost, never twice, never a wrong answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from denizen.errors import OutcomeUnknown, Unavailable
from denizen.events.appending import AppendWork
from denizen.events.records import Result
from denizen.events.store import ShardStore
from denizen.sharding.ids import ShardId, UserId
from denizen.testing.postgres import Database
from denizen.testing.proxy import Proxy, proxied

from .appends import EPOCH, registration, rename


@asynccontextmanager
async def store_over(arguments: dict[str, Any]) -> AsyncIterator[ShardStore]:
    store = ShardStore(ShardId("s1"), arguments, lanes=1)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@pytest.fixture
async def weak(shard: Database) -> AsyncIterator[tuple[ShardStore, Proxy]]:
    """A store behind a proxy, with its append lane connected."""
    async with proxied(shard) as (proxy, arguments), store_over(arguments) as store:
        await store.append(registration("first@example.com"), EPOCH)
        yield store, proxy


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second to learn an outcome, for what is waited for in vain."""
    monkeypatch.setattr(AppendWork, "deadline_s", 1.0)


async def total(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("select count(*) from denizen.events")
    return count


async def test_a_command_whose_answer_was_lost_at_commit_is_answered_with_what_it_did(
    weak: tuple[ShardStore, Proxy], connection: asyncpg.Connection
) -> None:
    store, proxy = weak
    user = registration("ann@example.com", key=b"k")
    await store.append(user, EPOCH)
    await store.append(rename(user, 1, "Anne"), EPOCH)  # from now on, the store has the user's key
    for append in (registration("bob@example.com", key=b"l"), rename(user, 2, "Ann"), rename(user, 3, "Anna")):
        proxy.cut_next_reply = True
        outcome = await store.append(append, EPOCH)
        assert outcome.result is Result.REPEATED
        assert outcome.version == append.expected + 1
    assert proxy.replies_cut == 3
    assert await total(connection) == 6


async def test_a_group_whose_answer_was_lost_is_done_once(
    weak: tuple[ShardStore, Proxy], connection: asyncpg.Connection
) -> None:
    store, proxy = weak
    proxy.cut_next_reply = True
    outcomes = await asyncio.gather(*(store.append(registration(f"u{n}@example.com"), EPOCH) for n in range(50)))
    assert {outcome.result for outcome in outcomes} == {Result.REPEATED}
    assert await total(connection) == 51


async def test_a_terminated_backend_is_replaced_and_the_command_done_once(
    store: ShardStore, connection: asyncpg.Connection
) -> None:
    user = registration("ann@example.com")
    async with connection.transaction():  # holds the bucket, so that the append is caught in the middle
        await connection.execute("select from denizen.buckets where bucket = $1 for update", user.bucket)
        waiting = store.append(user, EPOCH)
        pid = await lock_waiter(connection)
        await connection.execute("select pg_terminate_backend($1, 5000)", pid)
    assert (await waiting).result is Result.DONE
    assert await total(connection) == 1


async def lock_waiter(connection: asyncpg.Connection) -> int:
    """The backend that waits for this connection's lock."""
    for _ in range(500):
        pid: int | None = await connection.fetchval(
            "select pid from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))"
        )
        if pid is not None:
            return pid
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for the lock")


async def test_a_bucket_locked_for_longer_than_the_lock_timeout_is_waited_for(
    shard: Database, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    perform = AppendWork.perform

    async def counted(work: AppendWork, *arguments: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return await perform(work, *arguments)

    monkeypatch.setattr(AppendWork, "perform", counted)
    async with store_over(shard.connect_args | {"server_settings": {"lock_timeout": "20"}}) as store:
        user = registration("ann@example.com")
        async with connection.transaction():
            await connection.execute("select from denizen.buckets where bucket = $1 for update", user.bucket)
            waiting = asyncio.ensure_future(store.append(user, EPOCH))
            while attempts < 3:
                await asyncio.sleep(0.005)
            assert not waiting.done()
        assert (await waiting).result is Result.DONE


async def test_a_bucket_that_stays_locked_is_unavailable_and_nothing_was_changed(
    shard: Database, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_over(shard.connect_args | {"server_settings": {"lock_timeout": "20"}}) as store:
        user = registration("ann@example.com")
        async with connection.transaction():
            await connection.execute("select from denizen.buckets where bucket = $1 for update", user.bucket)
            monkeypatch.setattr(AppendWork, "deadline_s", 2.0)
            with pytest.raises(Unavailable, match="nothing was changed"):
                await store.append(user, EPOCH)
            monkeypatch.undo()
        assert await total(connection) == 0
        assert (await store.append(user, EPOCH)).result is Result.DONE


async def test_what_was_never_sent_is_unavailable(shard: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    async with proxied(shard) as (proxy, arguments), store_over(arguments) as store:
        proxy.refusing = True
        with pytest.raises(Unavailable, match="nothing was changed"):
            await store.append(registration("ann@example.com"), EPOCH)


async def test_what_was_sent_and_never_answered_is_an_unknown_outcome(
    weak: tuple[ShardStore, Proxy], connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = weak
    shorten(monkeypatch)
    proxy.cut_next_reply = proxy.refusing = True
    user = registration("ann@example.com", key=b"k")
    with pytest.raises(OutcomeUnknown):
        await store.append(user, EPOCH)
    assert await total(connection) == 2
    proxy.refusing = False
    monkeypatch.undo()
    again = await store.append(registration("ann@example.com", key=b"k"), EPOCH)
    assert (again.result, again.stream) == (Result.REPEATED, user.stream)


async def test_a_doubt_stays_a_doubt_when_the_next_attempt_is_only_refused(
    shard: Database, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(shard) as (proxy, arguments):
        arguments["server_settings"] = {"lock_timeout": "100"}
        async with store_over(arguments) as store:
            await store.append(registration("first@example.com"), EPOCH)
            user = registration("ann@example.com")
            shorten(monkeypatch)
            proxy.flowing.clear()
            waiting = asyncio.ensure_future(store.append(user, EPOCH))
            async with connection.transaction():
                await connection.execute("select from denizen.buckets where bucket = $1 for update", user.bucket)
                proxy.cut_next_reply = True
                proxy.flowing.set()  # the first attempt is broken off, every later one times out at the lock
                with pytest.raises(OutcomeUnknown):
                    await waiting


async def test_a_frozen_server_gives_an_unknown_outcome_in_time_and_the_lane_goes_on(
    weak: tuple[ShardStore, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = weak
    shorten(monkeypatch)
    proxy.flowing.clear()
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(store.append(registration("ann@example.com"), EPOCH), 10)
    proxy.flowing.set()
    monkeypatch.undo()
    assert (await store.append(registration("bob@example.com"), EPOCH)).result is Result.DONE


async def test_connections_that_break_while_idle_are_not_noticed_by_anyone(
    weak: tuple[ShardStore, Proxy],
) -> None:
    store, proxy = weak
    user = registration("ann@example.com")
    await store.append(user, EPOCH)
    asked: list[Awaitable[Any]] = [store.user(UserId(user.stream)), store.name(user.bucket, user.names[0].name)]
    assert all(await asyncio.gather(*asked))
    await store.read(lambda connection: connection.fetchval("select 1"))
    proxy.cut_all()
    asked = [
        store.append(rename(user, 1, "Ann"), EPOCH),
        store.user(UserId(user.stream)),
        store.name(user.bucket, user.names[0].name),
        store.read(lambda connection: connection.fetchval("select 1")),
    ]
    assert all(await asyncio.gather(*asked))


async def test_a_stopped_store_refuses_politely(shard: Database) -> None:
    async with store_over(shard.connect_args) as store:
        last = store.append(registration("ann@example.com"), EPOCH)
    assert (await last).result is Result.DONE
    with pytest.raises(Unavailable, match="stopping"):
        await store.append(registration("bob@example.com"), EPOCH)
