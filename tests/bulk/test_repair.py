"""Two shards from backups of different moments: what was cut in two is told, and mended by the users' events."""

import asyncio
import subprocess
import sys
from collections import Counter
from urllib.parse import urlsplit

import pytest

from denizen.deployment.layout import Deployment
from denizen.service.context import Context
from denizen.service.gateway import Gateway
from denizen.testing.postgres import ThrowawayServer
from denizen.users.commands import Registration, UserPatch

from .conftest import assert_agrees, verified
from .test_resume import gateway_of

BEFORE, BETWEEN = range(40), range(40, 80)


def database_of(deployment: Deployment, shard: int) -> str:
    dsn = deployment.record.shards[shard].dsn
    assert dsn is not None
    return urlsplit(dsn).path.strip("/")


async def register(gateway: Gateway, numbers: range) -> list:
    made = []
    for number in numbers:
        registration = Registration(email=f"user{number}@example.org", username=f"user{number}")
        made.append((await gateway.users.register(registration, Context("test"))).user.id)
    return made


@pytest.fixture
async def cut(deployment: Deployment, postgres_server: ThrowawayServer) -> Deployment:
    """Its first shard is restored from a moment before the second one's; changes of every kind lie between."""
    first = database_of(deployment, 0)
    async with gateway_of(deployment, 60) as gateway:
        users = await register(gateway, BEFORE)
    await asyncio.to_thread(postgres_server.execute, f'CREATE DATABASE "backup of {first}" TEMPLATE "{first}"')
    async with gateway_of(deployment, 60) as gateway:
        await register(gateway, BETWEEN)
        for number, user in enumerate(users):
            if number % 3 == 0:
                await gateway.users.change(user, UserPatch(username=f"changed{number}"), context=Context("test"))
            elif number % 3 == 1:
                await gateway.users.delete(user, context=Context("test"))
    await asyncio.to_thread(postgres_server.execute, f'DROP DATABASE "{first}"')
    await asyncio.to_thread(postgres_server.execute, f'ALTER DATABASE "backup of {first}" RENAME TO "{first}"')
    return deployment


def repair(deployment: Deployment) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "denizen", "verify", "--repair", "--data", str(deployment.directory)]
    return subprocess.run(command, capture_output=True, check=False)


async def test_what_was_cut_in_two_is_told_and_mended(cut: Deployment) -> None:
    found = await verified(cut)
    assert found.by_kind.keys() == {"name_missing", "name_extra"}
    assert min(found.by_kind.values()) > 5
    done = await asyncio.to_thread(repair, cut)
    assert done.returncode == 0, done.stdout + done.stderr
    total = sum(found.by_kind.values())
    assert f"{total} of {total} login names mended".encode() in done.stderr
    await assert_agrees(cut, users=found.users)


async def test_a_name_that_somebody_else_has_by_now_stays_with_them(cut: Deployment) -> None:
    missing = [each for each in (await verified(cut)).differences if each.kind == "name_missing"]
    lost = next(each.login_name for each in missing if each.field == "username")
    async with gateway_of(cut, 60) as gateway:
        await gateway.users.register(Registration(email="quicker@example.org", username=lost), Context("test"))
        await gateway.names.drain()
    done = await asyncio.to_thread(repair, cut)
    assert done.returncode == 1
    left = await verified(cut)
    assert Counter(each.kind for each in left.differences) == {"name_missing": 1}
    assert left.differences[0].login_name == lost
    assert "its row is of" in left.differences[0].detail
