"""A million users in the directory, written straight into the read model by COPY: what the projector would have made.

Names are of several scripts, some common and most rare, and go with countries: who is called 山田 lives in Japan. So
there are pairs of filters that fit many users each and none together, the hard case of every search.
"""

import multiprocessing
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from denizen.projections import registry
from denizen.projections.database import connect_writer
from denizen.projections.directory.model import DIRECTORY, STATE, TERMS, DirectoryRow, row_of, words_of_row
from denizen.projections.replay.worker import connect_bulk
from denizen.projections.tables import SCHEMA
from denizen.sharding.ids import BUCKETS, user_id
from denizen.testing.postgres import run_blocking
from denizen.users.state import Name, Status, User

_SYLLABLES: Final = tuple(f"{first}{second}" for first in "bdfghjklmnprstvwz" for second in "aeio")
_PLACES: Final = (
    ("US", "Ann Noah Emma Liam Olivia James Mary John", "Smith Johnson Brown Jones Miller Davis O'Neil"),
    ("DE", "Jürgen Anna Lukas Zoë Jörg Maria", "Müller Schmidt Weiß Schäfer Nowak"),
    ("FR", "Chloé Jean-Luc Marie Rémi", "Dubois Lefèvre Moreau Martin"),
    ("BR", "João Maria Ana Luís", "Silva Araújo Gonçalves Rossi"),
    ("RU", "Анна Иван Ольга Дмитрий Владимир", "Иванова Смирнов Кузнецов Иванов"),
    ("JP", "太郎 さくら 健太 美咲", "山田 佐藤 鈴木 高橋 山本"),
    ("CN", "伟 芳 秀英 小龙", "王 李 张 刘"),
)
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_CHUNK: Final = 20_000


def fill(connect_args: Mapping[str, Any], users: int, workers: int = 2) -> None:
    """Make version 1 of the directory, live, with so many users."""
    run_blocking(_create(connect_args))
    context = multiprocessing.get_context("spawn")
    span = -(-users // workers)
    parts = [(dict(connect_args), first, min(first + span, users)) for first in range(0, users, span)]
    with context.Pool(workers) as pool:
        pool.starmap(_fill, parts)
        statements = [statement for table in DIRECTORY.tables for statement in table.create_indexes(1)]
        statements.sort(key=lambda statement: TERMS.name not in statement)
        pool.starmap(_run, [(dict(connect_args), statement) for statement in statements], chunksize=1)
        pool.starmap(_run, [(dict(connect_args), f"vacuum analyze {SCHEMA}.{table.at(1)}") for table in (STATE, TERMS)])


def users_of(first: int, last: int) -> Iterator[DirectoryRow]:
    """The rows of these users, by number; the same for the same number whoever makes it."""
    chance = random.Random(first)  # noqa: S311 - not a secret
    for number in range(first, last):
        moment = _BEGIN + timedelta(seconds=number * 3)
        place, given, family = _PLACES[int(len(_PLACES) * chance.random() ** 1.5)]
        name = Name(_name(given, chance), _name(family, chance))
        user = User(
            Status.ACTIVE if chance.random() > 0.02 else Status.SUSPENDED,
            email=f"user{number}@example.com",
            username=f"user{number}",
            name=name,
            country=place,
            locale="en",
            attributes={
                "plan": chance.choice(("free", "free", "gold")),
                "tier": f"t{int(1000 * chance.random() ** 3)}",
            },
        )
        identifier = user_id(int(moment.timestamp() * 1000), chance.randrange(BUCKETS), chance.getrandbits(62))
        yield row_of(identifier, user, moment, moment + timedelta(days=chance.random() * 90), 3)


def _name(common: str, chance: random.Random) -> str:
    """Half of the names are common ones of the place; the others are made of syllables, rare and rarer."""
    names = common.split()
    if chance.random() < 0.5:
        return names[int(len(names) * chance.random() ** 2)]
    return "".join(chance.choices(_SYLLABLES, k=chance.choice((2, 3, 3)))).capitalize()


async def _create(connect_args: Mapping[str, Any]) -> None:
    connection = await connect_writer(connect_args)
    async with connection.transaction():
        await registry.create_version(connection, DIRECTORY, 1, state="running", indexed=False)
        await registry.make_live(connection, DIRECTORY, 1)
    await connection.close()


def _fill(connect_args: dict[str, Any], first: int, last: int) -> None:
    async def copy() -> None:
        connection = await connect_bulk(connect_args)
        for start in range(first, last, _CHUNK):
            rows = list(users_of(start, min(start + _CHUNK, last)))
            terms = [term for row in rows for term in words_of_row(row)]
            for table, new in ((STATE, rows), (TERMS, terms)):
                await connection.copy_records_to_table(table.at(1), schema_name=SCHEMA, records=new)
        await connection.close()

    run_blocking(copy())


def _run(connect_args: dict[str, Any], statement: str) -> None:
    async def execute() -> None:
        connection: asyncpg.Connection = await connect_bulk(connect_args)
        await connection.execute(statement)
        await connection.close()

    run_blocking(execute())
