"""Searches of the directory with a million users, one after the other over one connection."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from denizen.bench.cqrs import crowd
from denizen.bench.report import Figure, percentile
from denizen.projections.database import migrate_read
from denizen.projections.directory.search import search
from denizen.projections.directory.wanted import Search
from denizen.projections.reading import ReadModels
from denizen.testing.postgres import run_blocking, throwaway_server

ROUNDS = 20
BAR_MS = 20.0
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "maintenance_work_mem": "256MB"}


def _named(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, **more} for name in names]


# What is asked; the thin ones fit many users each and few or none together, which is hard. Of the broad ones, the order
# begins with thousands whom they do not fit, or their words are prefixes of a great part of all words.
SEARCHES: Mapping[str, Sequence[dict[str, Any]]] = {
    "name prefix": _named("a", "s", "sm", "mul", "jur", "mari", "nowak", "ива", "山", "g", "ross", "be", "zizo", "o'n"),
    "two words": _named("ann smi", "jur mul", "mar sil", "анна ив", "be da", "a b", "an jo"),
    "two words, thin": _named("山 мо", "ann 佐", "smi mul", "иван sil", "an 山", "wawa zizo"),
    "name and country": [
        *_named("smi", "an", country="US"), *_named("mul", country="DE"), *_named("山", country="JP"),
    ],
    "name and country, thin": [
        *_named("山", country="BR"), *_named("smi", country="JP"),
        *_named("ива", country="US"), *_named("an", country="ZZ"),
    ],
    "attributes": [
        {"attributes": ("a:plan=gold",)}, {"attributes": ("a:tier=t999",)},
        {"attributes": ("a:plan=gold", "a:tier=t999")},
        {"attributes": ("a:plan=gold", "a:plan=free")}, {"attributes": ("a:plan=gold",), "name": "smi"},
    ],
    "sorted by time": [
        {"country": "US", "sort": "created", "descending": True}, {"country": "ZZ", "sort": "created"},
        *_named("an", "山", "zizo", sort="created", descending=True), *_named("山", country="BR", sort="updated"),
    ],
    "broad": [
        {"country": "US", "sort": "name", "descending": True}, {"country": "JP", "sort": "name"},
        *_named("b d f g h j k l m n p r s t v w z", "m ü"), *_named("山", sort="name"), *_named("m", country="ZZ"),
    ],
    "email prefix": [{"email": "user1"}, {"email": "user99999"}, {"email": "user1", "country": "BR"}],
}  # fmt: skip


def measure(users: int, console: Console) -> list[Figure]:
    """Fill a read database of its own, and search it."""
    with throwaway_server(settings=SETTINGS) as server:
        database = server.create_database(template="template0")
        run_blocking(migrate_read(database.connect_args))
        began = time.monotonic()
        crowd.fill(database.connect_args, users)
        console.print(f"{users:,} users in the directory, after {time.monotonic() - began:.0f} s")
        times = asyncio.run(_search(database.connect_args))
    figures = []
    for kind, milliseconds in times.items():
        barred = kind.startswith(("name", "two words"))
        bar: dict[str, Any] = {"bar": f"≤ {BAR_MS:.0f}", "at_most": BAR_MS} if barred else {}
        figures.append(Figure(f"{kind}, p50", (percentile(milliseconds, 50),), "ms"))
        figures.append(Figure(f"{kind}, p99", (percentile(milliseconds, 99),), "ms", **bar))
    return figures


async def _search(connect_args: Mapping[str, Any]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in SEARCHES}
    async with ReadModels(connect_args) as reads, reads.reader() as connection:
        for number in range(ROUNDS + 1):  # the first one warms the caches
            for kind, searches in SEARCHES.items():
                for wanted in searches:
                    began = time.perf_counter()
                    await search(connection, Search(limit=20, **wanted))
                    if number:
                        times[kind].append((time.perf_counter() - began) * 1000)
    return {kind: sorted(each) for kind, each in times.items()}
