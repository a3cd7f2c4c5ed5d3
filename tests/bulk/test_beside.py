"""An import beside the online service: both want the same names, and each name goes to exactly one."""

import asyncio
import json
from pathlib import Path

from denizen.bench.people import people
from denizen.deployment.layout import Deployment
from denizen.errors import LoginNameTaken, Unavailable
from denizen.service.context import Context
from denizen.users.validate import registration_from

from .conftest import Do, assert_agrees, rejected, write_lines
from .test_resume import gateway_of

PEOPLE = 3_000


async def test_sign_ups_race_an_import_for_the_same_names(
    deployment: Deployment, do_import: Do, tmp_path: Path
) -> None:
    everyone = list(people(PEOPLE))
    file = write_lines(tmp_path / "people.ndjson", everyone)
    won = 0
    async with gateway_of(deployment, 1.0) as gateway:

        async def sign_up(lane: int) -> None:
            nonlocal won
            for person in everyone[len(everyone) - 1 - lane :: -7]:
                changed = person | {"username": f"other{person['username']}"} if lane % 2 else person
                registration = registration_from(json.dumps(changed).encode())
                try:
                    await gateway.users.register(registration, Context("test"))
                    won += 1
                except (LoginNameTaken, Unavailable):
                    pass

        importing = asyncio.create_task(do_import(file, workers=2))
        await asyncio.gather(*map(sign_up, range(7)))
        summary = await importing
        await gateway.names.drain()
        while await gateway.sweeper.sweep():
            await asyncio.sleep(0.1)
    assert won > 0
    assert summary.rows == PEOPLE
    assert summary.imported + summary.skipped == PEOPLE
    assert len(rejected(file)) == summary.skipped
    await assert_agrees(deployment, users=summary.imported + won)
