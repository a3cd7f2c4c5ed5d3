"""`denizen.append` against its first, plainer text (migration 2): the same groups, the same answers, the same tables.

Each seed plays random groups to two databases that differ only in the function. There are few buckets, so that commands
meet: on streams, login names, keys, and where a bucket is fenced or elsewhere. Moments are compared by their groups.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from denizen.events.records import RESULTS
from denizen.events.store import connect
from denizen.postgres.migrations import known_migrations
from denizen.testing.postgres import ThrowawayServer

APPEND = (
    "select * from denizen.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,"
    " $17, $18, $19, $20, $21, $22) order by ordinal"
)
TABLES = {
    "buckets": "select bucket, epoch, state, head from denizen.buckets order by bucket",
    "events": "select * from denizen.events order by bucket, sequence",
    "users": "select * from denizen.users order by bucket, id",
    "login_names": "select * from denizen.login_names order by bucket, kind, value",
    "unsettled": "select * from denizen.login_names_unsettled order by bucket, kind, value",
    "erasures": "select * from denizen.erasures order by bucket, user_id",
    "idempotency": "select * from denizen.idempotency order by bucket, key",
}
WRONG_DIGESTS = (
    "select count(*) from denizen.buckets b where digest <>"
    " (select coalesce(bit_xor(denizen.event_hash(e)), 0) from denizen.events e where e.bucket = b.bucket)"
)
BUCKETS = range(6)  # the last of them is nowhere; a disturbance may put others elsewhere
DISTURBANCES = (
    "update denizen.buckets set state = 'open', epoch = 1 where bucket <> $1",
    "update denizen.buckets set state = 'open', epoch = 1 where bucket <> $1",
    "update denizen.buckets set state = 'fenced' where bucket = $1",
    "update denizen.buckets set state = 'incoming' where bucket = $1",
    "update denizen.buckets set state = 'moved' where bucket = $1",
    "update denizen.buckets set epoch = 2 where bucket = $1",
    "delete from denizen.users where bucket = $1",
    "delete from denizen.cancelled_commands where bucket <> $1",
    "insert into denizen.cancelled_commands (bucket, command_id)"
    " select $1, lpad(to_hex(n), 32, '0')::uuid from generate_series(0, 99) n on conflict do nothing",
)
ACTIONS = ("claim", "reserve", "confirm", "leave", "restore", "release")
TYPES = (1, 2, 3, 11, 101, 105)
Columns = list[list[Any]]


class Groups:
    """Random groups that make sense often enough: it learns from the answers what the versions are."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._versions: dict[UUID, int] = {}
        self._done: list[tuple[Any, ...]] = []

    def group(self) -> Columns:
        """The arguments of one call. Most groups keep the rule that nothing in them is shared; some do not."""
        chance = self._random
        commands: list[tuple[Any, ...]] = []
        names: list[tuple[Any, ...]] = []
        taken: set[object] = set()
        for _ in range(chance.choice((1, 1, 2, 4, 8, 20))):
            command = chance.choice(self._done) if self._done and chance.random() < 0.1 else self._command()
            mine = [self._name(len(commands) + 1, command[0]) for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))]
            keys = {command[2], (command[0], command[5] or object()), *((command[0], *name[2:4]) for name in mine)}
            if taken & keys or len(keys) < len(mine) + 2:
                continue
            taken |= keys
            commands.append(command)
            names += mine
        self._done = (self._done + commands)[-200:]
        if chance.random() < 0.1:
            commands *= 2
        columns = transposed(commands, 10)
        if not any(columns[5]):
            columns[5] = columns[6] = []
        return [*columns, *transposed(self._events(len(commands)), 6), *transposed(names, 6)]

    def learn(self, columns: Columns, answers: list[Any]) -> None:
        """Take note of the versions that a group has led to."""
        for stream, answer in zip(columns[2], answers, strict=True):
            if answer["outcome"] == "done":
                self._versions[stream] = answer["version"]

    def disturbance(self) -> tuple[str, int]:
        """Something that others do to the tables between two groups, and the bucket for it."""
        return self._random.choice(DISTURBANCES), self._random.choice(BUCKETS[:-1])

    def _command(self) -> tuple[Any, ...]:
        chance = self._random
        bucket = chance.choice(BUCKETS if chance.random() < 0.1 else BUCKETS[:-1])
        stream = self._stream(bucket)
        key = bytes([chance.randrange(6)]) if chance.random() < 0.1 else None
        state = chance.random() < 0.7
        known = self._versions.get(stream, 0)
        return (
            bucket,
            1 if chance.random() < 0.95 else 2,
            stream,
            chance.choice((known, known, known, known, -1, -1, known + 1, 0)),
            UUID(int=chance.randrange(300)),
            key,
            None if key is None else chance.choice((b"f", b"f", b"g")),
            chance.randrange(1, 4) if state else None,
            chance.randbytes(chance.randrange(20)) if state else None,
            chance.choice((None, chance.randbytes(8))),
        )

    def _events(self, commands: int) -> list[tuple[Any, ...]]:
        chance = self._random
        ordinals = [command for command in range(1, commands + 1) for _ in range(chance.choice((1, 1, 1, 2, 5)))]
        if chance.random() < 0.2:
            chance.shuffle(ordinals)
        return [
            (
                ordinal,
                chance.choice(TYPES),
                chance.randrange(1, 3),
                f"actor {chance.randrange(9)}",
                chance.choice((None, UUID(int=chance.getrandbits(128)))),
                chance.randbytes(chance.randrange(30)),
            )
            for ordinal in ordinals
        ]

    def _name(self, ordinal: int, bucket: int) -> tuple[Any, ...]:
        chance = self._random
        action = chance.choice(ACTIONS)
        reserved = action not in {"claim", "release"} or (action == "release" and chance.random() < 0.6)
        reservation = UUID(int=chance.randrange(2)) if reserved else None
        user = UUID(int=chance.randrange(2))
        return (ordinal, action, chance.choice((1, 1, 2)), f"n{chance.randrange(3)}", user, reservation)

    def _stream(self, bucket: int) -> UUID:
        return UUID(int=(bucket << 64) + self._random.choice((1, 1, 2, 2, *range(3, 30))))


def transposed(rows: list[tuple[Any, ...]], width: int) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


class Shard:
    """One of the two databases, and which group each of its moments belongs to."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._moments: dict[datetime, int] = {}

    async def append(self, number: int, columns: Columns) -> list[dict[str, Any]] | str:
        """The answers to a group, or the state (SQLSTATE) of the error that undid it."""
        try:
            rows = await self.connection.fetch(APPEND, *columns)
        except asyncpg.IntegrityConstraintViolationError as error:
            return str(error.sqlstate)
        self._moments |= {row["recorded_at"]: number for row in rows}
        return self._comparable(rows)

    async def contents(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables."""
        return {table: self._comparable(await self.connection.fetch(query)) for table, query in TABLES.items()}

    def _comparable(self, rows: list[Any]) -> list[dict[str, Any]]:
        return [
            {name: self._moments[value] if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        ]


def first_text() -> str:
    """The function as migration 2 made it."""
    text = known_migrations()[1].sql
    begin = text.index("create function denizen.append(")
    return text[begin : text.index("$$;", text.index("$$", begin) + 2) + 3].replace("create", "create or replace", 1)


@asynccontextmanager
async def two_shards(server: ThrowawayServer) -> AsyncIterator[tuple[Shard, Shard]]:
    async with AsyncExitStack() as stack:
        shards = []
        for other in (first_text(), None):
            database = server.create_database()
            stack.callback(server.drop_database, database)
            connection = await connect(database.connect_args)
            stack.push_async_callback(connection.close)
            if other is not None:
                await connection.execute(other)
            await connection.execute(
                "insert into denizen.buckets (bucket, epoch, state) select b, 1, 'open' from unnest($1::smallint[]) b",
                list(BUCKETS[:-1]),
            )
            shards.append(Shard(connection))
        yield shards[0], shards[1]


@pytest.mark.parametrize("seed", range(4))
async def test_it_answers_and_writes_what_its_first_text_did(postgres_server: ThrowawayServer, seed: int) -> None:
    groups = Groups(seed)
    outcomes: set[str] = set()
    async with two_shards(postgres_server) as (first, now):
        for number in range(300):
            if number % 5 == 4:
                disturbance, bucket = groups.disturbance()
                await first.connection.execute(disturbance, bucket)
                await now.connection.execute(disturbance, bucket)
            columns = groups.group()
            answers = await first.append(number, columns)
            assert await now.append(number, columns) == answers, f"group {number}: {columns}"
            if isinstance(answers, str):
                outcomes.add(answers)
            else:
                groups.learn(columns, answers)
                outcomes |= {answer["outcome"] for answer in answers}
            if number % 20 == 19:
                contents = await first.contents()
                assert await now.contents() == contents, f"after group {number}"
                assert await now.connection.fetchval(WRONG_DIGESTS) == 0
        assert all(contents.values()), "every table was written to"
    assert outcomes >= {*RESULTS, "23505"}, "every outcome occurred, and a group that its own constraints undid"
