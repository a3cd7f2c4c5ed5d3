"""A gateway that is killed at any step of an erasure: another one's sweeper ends it, or nothing was begun."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from denizen.errors import UserErased
from denizen.service.gateway import Gateway
from denizen.service.sweeper import Sweeper
from denizen.sharding.bucket_map import initial_map, write_map
from denizen.sharding.ids import ShardId
from denizen.testing.consistency import assert_consistent
from denizen.testing.postgres import Database

from .people import BY, Person, secrets_of, somebody, traces

# Erases, and is killed at its n-th append: before it is sent, or when it is done but nobody knows yet.
ERASER = """
import asyncio, os, signal
from pathlib import Path
from uuid import UUID
from denizen.events import sealing
from denizen.service import Context
from denizen.service.gateway import Gateway
from denizen.sharding.bucket_map import LocalMapSource
from denizen.testing.gateway import KEYRING, KINDS, SEED

AT, DONE, USER = {at}, {done}, UUID({user!r})

async def main():
    sealing.use(KEYRING)
    async with Gateway({shards!r}, LocalMapSource(Path({map!r})), SEED, KINDS, sweep_grace_s=3600.0) as gateway:
        submit, count = gateway.router.submit, 0

        async def last(answer):
            await answer
            os.kill(os.getpid(), signal.SIGKILL)

        def dying(append):
            nonlocal count
            count += 1
            if count == AT and not DONE:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = submit(append)
            return last(answer) if count == AT else answer

        gateway.router.submit = dying
        await gateway.erasures.erase(USER, Context("key:killed"))

asyncio.run(main())
"""


@pytest.mark.parametrize("done", [False, True], ids=["before it is sent", "when it is done"])
async def test_a_gateway_killed_at_any_step_of_an_erasure(
    gateway: Gateway, databases: list[Database], tmp_path: Path, done: bool
) -> None:
    path = tmp_path / "map.json"
    write_map(path, initial_map([ShardId("s1"), ShardId("s2")]))
    shards = {f"s{number}": database.connect_args for number, database in enumerate(databases, 1)}
    killed = []
    for at in range(1, 8):
        person = await somebody(gateway)
        code = ERASER.format(at=at, done=done, user=str(person.id), shards=shards, map=str(path))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        killed.append(await asyncio.wait_for(process.wait(), 60))
        await _sweep(gateway)
        await _is_whole_or_gone(gateway, databases, person)
        await gateway.erasures.erase(person.id, BY)
        assert (await traces(databases, person.mark), await secrets_of(databases, person.id)) == ([], [])
        if killed[-1] == 0:
            break
    assert killed == [-signal.SIGKILL] * (len(killed) - 1) + [0]  # every append was the last one once
    assert len(killed) >= 4
    await assert_consistent(gateway)


async def _sweep(gateway: Gateway) -> None:
    sweeper = Sweeper(gateway.router, gateway.names, grace_s=0.0)
    async with asyncio.timeout(30):
        while await sweeper.sweep() or await gateway.erasures.sweep():
            pass


async def _is_whole_or_gone(gateway: Gateway, databases: list[Database], person: Person) -> None:
    try:
        user = (await gateway.users.get(person.id)).user
    except UserErased:
        assert (await traces(databases, person.mark), await secrets_of(databases, person.id)) == ([], [])
        assert (await gateway.erasures.certificate(person.id)).settled_at is not None
        return
    assert user.username == f"{person.mark}w"
    assert len(await gateway.users.history(person.id, limit=100)) == person.version
    await assert_consistent(gateway)
