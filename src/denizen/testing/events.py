"""Many events in a shard at once: written by COPY, as a long life would have left them. For measurements."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from denizen.events.codec import Event, codec
from denizen.events.sealing import new_key, seal
from denizen.sharding.ids import Bucket, mint_user_id
from denizen.users.events import AttributesChanged, EmailChanged, ProfileChanged, UserRegistered
from denizen.users.state import Name

COLUMNS = ("bucket", "sequence", "stream", "version", "type", "schema", "recorded_at", "command_id", "actor", "data",
           "secret")  # fmt: skip
_GIVEN = ("Ann", "Jürgen", "Maria", "Владимир", "太郎", "Olga", "Jean-Luc", "Zoë", "Noah", "Amira", "Sven", "Lucía")
_FAMILY = ("Smith", "Müller", "Nowak", "Иванов", "山田", "García", "Rossi", "Dubois", "Larsen", "Haddad", "O'Neil")
_COUNTRIES = ("DE", "FR", "US", "JP", "PL", "BR", "IN", "CH")
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK = 20_000


async def fill_shard(connection: asyncpg.Connection, buckets: Sequence[Bucket], events: int, *, seed: int = 1) -> None:
    """Write so many events of users into these buckets, three a user on average, and the heads that go with them."""
    heads: dict[int, int] = {}
    rows: list[tuple[Any, ...]] = []
    for row in _rows(buckets, events, heads, random.Random(seed)):  # noqa: S311 - not a secret
        rows.append(row)
        if len(rows) == _CHUNK:
            await _copy(connection, rows)
            rows = []
    await _copy(connection, rows)
    await connection.execute(
        "update denizen.buckets b set head = n.head from unnest($1::smallint[], $2::bigint[]) as n (bucket, head)"
        " where b.bucket = n.bucket",
        list(heads),
        list(heads.values()),
    )


def _rows(
    buckets: Sequence[Bucket], events: int, heads: dict[int, int], chance: random.Random
) -> Iterator[tuple[Any, ...]]:
    made = 0
    while made < events:
        bucket = chance.choice(buckets)
        moment = _BEGIN + timedelta(milliseconds=made * 10)
        stream = mint_user_id(bucket, int(moment.timestamp() * 1000))
        for version, event in enumerate(_life(made, chance), 1):
            heads[bucket] = heads.get(bucket, 0) + 1
            number, schema, data = codec.encode(event)
            if version == 1:
                secret, cipher = new_key(stream.bytes)
            data = seal(cipher, stream.bytes, version, number, schema, data)
            command = UUID(int=chance.getrandbits(128))
            yield (bucket, heads[bucket], stream, version, number, schema, moment, command, "bench", data,
                   secret if version == 1 else None)  # fmt: skip
            made += 1


def _life(number: int, chance: random.Random) -> list[Event]:
    life: list[Event] = [
        UserRegistered(
            email=f"user{number}@example.com",
            username=f"user{number}",
            name=Name(chance.choice(_GIVEN), f"{chance.choice(_FAMILY)}{number % 997}"),
            country=chance.choice(_COUNTRIES),
            locale="en",
            attributes={"plan": chance.choice(("free", "free", "gold")), "newsletter": bool(number % 2)},
        )
    ]
    for _ in range(chance.choice((0, 1, 2, 3, 4))):
        kind = chance.random()
        if kind < 0.5:
            life.append(AttributesChanged(changed={"plan": chance.choice(("free", "gold", "team"))}))
        elif kind < 0.8:
            life.append(ProfileChanged(country=chance.choice(_COUNTRIES)))
        else:
            life.append(EmailChanged(f"changed{number}@example.com"))
    return life


async def _copy(connection: asyncpg.Connection, rows: list[tuple[Any, ...]]) -> None:
    await connection.copy_records_to_table("events", schema_name="denizen", columns=COLUMNS, records=rows)
