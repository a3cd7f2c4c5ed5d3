"""An import that is killed at any moment is gone on with, and ends as if nothing had happened.

The real command is killed with SIGKILL at each phase: while names are reserved, after users were appended, before names
are confirmed; with the service's sweeper running beside it, and without.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from denizen.bench.people import write_people
from denizen.bulk.shards import Shards
from denizen.deployment.layout import Deployment
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import LocalMapSource
from denizen.testing.postgres import Database
from denizen.testing.proxy import proxied
from denizen.users.login_names import LoginNameKind

from .conftest import Do, assert_agrees, on_each, until, verified

PEOPLE = 12_000
OURS = "application_name = 'denizen import' and datname = current_database()"
KINDS = frozenset({LoginNameKind.EMAIL, LoginNameKind.USERNAME})


async def begin(deployment: Deployment, file: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "denizen",
        "import",
        str(file),
        "--data",
        str(deployment.directory),
        "--json",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def count(deployment: Deployment, what: str) -> int:
    return sum([row["count"] for row in await on_each(deployment, f"select count(*) from denizen.{what}")])  # noqa: S608


async def workers_are_gone(deployment: Deployment) -> bool:
    """Their sessions at least: a killed worker's transaction is undone."""
    query = f"select count(*) from pg_stat_activity where {OURS}"  # noqa: S608
    return sum([row["count"] for row in await on_each(deployment, query)]) == 0


@asynccontextmanager
async def gateway_of(deployment: Deployment, grace_s: float) -> AsyncIterator[Gateway]:
    shards = {shard.id: shard.connect_args for shard in deployment.shards.values()}
    source = LocalMapSource(deployment.map_path)
    deployment.use_keyring()
    async with Gateway(shards, source, deployment.hash_seed, KINDS, sweep_grace_s=grace_s) as gateway:
        yield gateway


PHASES = {
    "while names are reserved": "login_names_unsettled where state = 'reserved'",
    "when users were appended": "users",
    "when names are confirmed": "events where type = 102",
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("swept", [False, True])
async def test_an_import_killed_in_any_phase_goes_on(
    deployment: Deployment, do_import: Do, tmp_path: Path, phase: str, swept: bool
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, PEOPLE)
    process = await begin(deployment, file)
    threshold = 2_500 if phase != "when names are confirmed" else 1_000

    async def reached() -> bool:
        return process.returncode is not None or await count(deployment, PHASES[phase]) >= threshold

    await until(reached)
    process.kill()
    await process.communicate()
    await until(lambda: workers_are_gone(deployment))
    if swept:
        async with gateway_of(deployment, 0.0) as gateway:
            while await gateway.sweeper.sweep():
                pass
        assert await count(deployment, "login_names_unsettled") == 0
    summary = await do_import(file, workers=2)
    assert (summary.rows, summary.imported, summary.skipped, summary.rejected) == (PEOPLE, PEOPLE, 0, 0)
    await assert_agrees(deployment, users=PEOPLE)


async def test_a_sweeper_without_any_patience_beside_an_import_costs_time_only(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 4_000)
    async with gateway_of(deployment, 0.0) as gateway:

        async def sweep() -> None:
            while True:
                await gateway.sweeper.sweep()
                await asyncio.sleep(0.01)

        sweeping = asyncio.create_task(sweep())
        summary = await do_import(file, workers=2)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    assert (summary.imported, summary.skipped, summary.rejected) == (4_000, 0, 0)
    await assert_agrees(deployment, users=4_000)


async def test_a_broken_connection_is_made_again(deployment: Deployment, do_import: Do, tmp_path: Path) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, PEOPLE)
    query = f"select count(pg_terminate_backend(pid)) from pg_stat_activity where {OURS}"  # noqa: S608

    async def cut() -> None:
        while True:
            await asyncio.sleep(0.3)
            await on_each(deployment, query)

    cutting = asyncio.create_task(cut())
    summary = await do_import(file, workers=2)
    cutting.cancel()
    await asyncio.gather(cutting, return_exceptions=True)
    assert (summary.imported, summary.skipped, summary.rejected) == (PEOPLE, 0, 0)
    await assert_agrees(deployment, users=PEOPLE)


async def test_a_connection_that_breaks_as_a_command_begins_is_made_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = deployment.places()
    first = next(iter(places))
    async with proxied(Database("", {}, places[first]["dsn"])) as (proxy, arguments):
        monkeypatch.setattr(deployment, "places", lambda: {**places, first: arguments})
        proxy.cut_next_reply = True
        shards = Shards(deployment, {})
        try:
            await shards.start()
            assert await (await shards[first].connection()).fetchval("select 1") == 1
        finally:
            await shards.close()
    assert proxy.replies_cut == 1


async def test_ctrl_c_stops_after_the_rows_in_hand_and_says_how_to_go_on(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 60_000)
    process = await begin(deployment, file)

    async def begun() -> bool:
        return await count(deployment, "users") > 0

    await until(begun)
    process.send_signal(signal.SIGINT)
    said, _ = await process.communicate()
    assert process.returncode == 1
    stopped: dict[str, Any] = json.loads(said)
    assert not stopped["complete"]
    assert 0 < stopped["imported"] < 60_000
    assert await workers_are_gone(deployment)
    assert stopped["imported"] == (await verified(deployment)).users
    summary = await do_import(file, workers=2)
    assert (summary.imported, summary.import_id, summary.resumed) == (60_000, stopped["import_id"], True)
    await assert_agrees(deployment, users=60_000)


async def test_a_stopped_worker_does_not_hold_its_locks_for_long(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "people.ndjson"
    write_people(file, 60_000)
    process = await begin(deployment, file)

    async def begun() -> bool:
        return await count(deployment, "users") > 0

    await until(begun)
    listing = await asyncio.create_subprocess_exec("pgrep", "-P", str(process.pid), stdout=asyncio.subprocess.PIPE)
    workers = [int(pid) for pid in (await listing.communicate())[0].split()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        for shard in deployment.shards.values():
            connection = await asyncpg.connect(**shard.connect_args)
            async with asyncio.timeout(15):
                await connection.execute("update denizen.buckets set head = head")
            await connection.close()
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    said, _ = await process.communicate()
    assert json.loads(said)["imported"] == 60_000
    await assert_agrees(deployment, users=60_000)
