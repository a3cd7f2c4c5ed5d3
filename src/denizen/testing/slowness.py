"""A step of a move that takes its time, so that a fault meets it also on a busy machine.

A bucket is fenced for the milliseconds in which both copies are made equal, and verified for those in which the target
opens it. A trigger in the target lets either end as late as on a slow disk.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from denizen.control.state import Stage
from denizen.deployment.layout import Deployment
from denizen.events.lanes import BROKEN, PASSING

_SLOW: Final = """
    create function denizen.be_slow() returns trigger language plpgsql as $$
    begin
        perform pg_sleep(0.3);
        return new;
    end
    $$;
    create trigger be_slow before update on denizen.{} for each row
        when (old.state <> new.state and new.state = '{}') execute function denizen.be_slow();
"""
_END_OF: Final = {Stage.FENCED: ("bucket_moves", "verified"), Stage.VERIFIED: ("bucket_moves", "opened")}
_QUICK: Final = "drop function if exists denizen.be_slow() cascade"
_QUICK_WITHIN_S: Final = 30.0


@asynccontextmanager
async def slowed(deployment: Deployment, stage: Stage) -> AsyncIterator[None]:
    """Servers take 0.3 s to end this stage, if it is one of milliseconds; not so afterwards, whatever befell them."""
    if stage not in _END_OF:
        yield
        return
    await _on_each(deployment, _SLOW.format(*_END_OF[stage]))
    try:
        yield
    finally:
        await _on_each(deployment, _QUICK)


async def _on_each(deployment: Deployment, script: str) -> None:
    async with asyncio.timeout(_QUICK_WITHIN_S):
        await asyncio.gather(*(_on(shard.connect_args, script) for shard in deployment.shards.values()))


async def _on(arguments: dict[str, object], script: str) -> None:
    """Run a script on a server, as soon as it is there."""
    while True:
        try:
            connection = await asyncpg.connect(**arguments)
            try:
                await connection.execute(script)
            finally:
                connection.terminate()
        except (*BROKEN, *PASSING):
            await asyncio.sleep(0.1)
        else:
            return
