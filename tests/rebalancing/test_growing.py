"""From two shards to four to three while clients do everything at once: nothing lost, nothing stopped, nothing left."""

import asyncio
import json
from typing import Any

import pytest

from denizen.operators.opening import desk_of
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.leftovers import leftovers
from denizen.testing.mixed_load import MixedLoad, run_denizen

pytestmark = pytest.mark.timeout(280)

CLIENTS = 6
PART = 0.02  # of a new shard, so that a test moves some hundred buckets and not some thousand
GONE_WITHIN_S = 60.0


async def _denizen(running: RunningDeployment, *arguments: str) -> dict[str, Any]:
    done = await run_denizen(*arguments, "--data", str(running.data), "--json")
    assert done.code == 0, f"{arguments}: {done.out} {done.error}"
    answer: dict[str, Any] = json.loads(done.out)
    return answer


async def _grow_and_shrink(running: RunningDeployment, load: MixedLoad) -> None:
    await _denizen(running, "rebalance", "settings", "--grace", "1", "--clean-rate", "0")
    for _ in range(2):
        await _denizen(running, "shards", "add", "--weight", str(PART), "--no-rebalance")
    plan = await _denizen(running, "rebalance", "plan")
    ended = await _denizen(running, "rebalance", "run", "--plan", plan["id"])
    assert (ended["id"], ended["status"], ended["committed"]) == (plan["id"], "done", len(plan["moves"]))
    assert {move["target"] for move in plan["moves"]} >= {"s3", "s4"}  # and s2, if it has less than s1 by chance
    ended = await _denizen(running, "shards", "drain", "s3")
    assert (ended["status"], ended["failed"]) == ("done", 0)
    await _gone(running, "s3")


async def _gone(running: RunningDeployment, shard: str) -> None:
    """Wait until the drained shard's server has stopped."""
    desk = desk_of(running.deployment)
    async with asyncio.timeout(GONE_WITHIN_S):
        while (await desk.shard(shard)).status != "removed":
            await asyncio.sleep(0.1)


def test_growing_and_shrinking_under_load_loses_nothing_and_stops_nobody() -> None:
    with throwaway_deployment(shards=2) as running:

        async def scenario() -> None:
            load, done = MixedLoad(running.url, running.admin_key, pause_s=0.02), False
            working = asyncio.gather(
                load.work(CLIENTS, lambda: done),
                load.import_beside(running.data, running.directory, lambda: done, pause_s=2.0),
            )
            try:
                await _grow_and_shrink(running, load)
            finally:
                done = True
                await working
            verdict = await load.verdict()
            assert verdict.clean, "\n".join(verdict.problems[:20])
            assert verdict.acknowledged > 300
            assert verdict.reads > 300
            assert verdict.batches > 0
            assert verdict.imported > 0
            await _denizen(running, "verify")
            state = await desk_of(running.deployment).control.state()
            assert state.map is not None
            assert state.map.shards == ("s1", "s2", "s4")
            assert not state.moves
            assert await leftovers(running.deployment, state.map) == []

        asyncio.run(scenario())
