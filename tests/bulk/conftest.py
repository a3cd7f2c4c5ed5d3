"""A deployment over throwaway databases, and the commands as functions."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from denizen.bulk.imports.run import Import, Options, Summary
from denizen.bulk.verification.run import Outcome, verify
from denizen.deployment.birth import ensure_map, prepare_shard
from denizen.deployment.layout import Deployment
from denizen.testing.postgres import ThrowawayServer, run_blocking

Do = Callable[..., Awaitable[Summary]]


class Silent:
    """Watches nothing."""

    def begin(self, *_: Any) -> None:
        pass

    def advance(self, *_: Any) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@pytest.fixture
def deployment(postgres_server: ThrowawayServer, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of two shards, without a gateway."""
    yield from a_deployment(postgres_server, tmp_path / "data")


@pytest.fixture
def another(postgres_server: ThrowawayServer, tmp_path: Path) -> Iterator[Deployment]:
    """Another one, empty as well."""
    yield from a_deployment(postgres_server, tmp_path / "another")


def a_deployment(server: ThrowawayServer, directory: Path) -> Iterator[Deployment]:
    databases = [server.create_database(template="template0") for _ in range(2)]
    made = Deployment.create(directory, shards=0, dsns=[database.dsn for database in databases])
    bucket_map = ensure_map(made)
    for shard in made.shards.values():
        run_blocking(prepare_shard(made, shard, bucket_map))
    yield made
    for database in databases:
        server.drop_database(database)


@pytest.fixture
def do_import(deployment: Deployment) -> Do:
    """Import a file into the deployment."""

    async def run(file: Path, **options: Any) -> Summary:
        return await Import(Options(input=str(file), data=deployment.directory, **options), Silent()).run()

    return run


async def verified(deployment: Deployment) -> Outcome:
    """What verify says."""
    return await verify(deployment.directory, Silent(), workers=1)


async def assert_agrees(deployment: Deployment, *, users: int) -> None:
    outcome = await verified(deployment)
    assert outcome.differences == []
    assert (outcome.users, outcome.unsettled) == (users, 0)


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """NDJSON of these documents; bytes go in as they are."""
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def rejected(file: Path) -> list[dict[str, Any]]:
    """What the file of rejected rows says."""
    path = Path(f"{file}.rejected.ndjson")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def on_each(deployment: Deployment, query: str, *arguments: Any) -> list[Any]:
    """The rows of a query on every shard."""
    found: list[Any] = []
    for shard in deployment.shards.values():
        connection = await asyncpg.connect(**shard.connect_args)
        try:
            found += await connection.fetch(query, *arguments)
        finally:
            await connection.close()
    return found


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
