"""The operators' methods of the client, against a gateway with a control plane of its own."""

import pytest

from denizen.api.operations import PlanDocument
from denizen.client import Client, Refused, ShardNotFound


async def test_shards_are_listed_weighed_and_drained(client: Client) -> None:
    operations = client.operations
    assert [shard.id for shard in await operations.shards()][:2] == ["s1", "s2"]
    assert (await operations.set_weight("s2", 2.5)).weight == 2.5
    assert (await operations.drain_shard("s2")).status == "draining"
    assert (await operations.keep_shard("s2")).status == "active"
    await operations.set_weight("s2", 1.0)
    with pytest.raises(ShardNotFound):
        await operations.shard("s99")


async def test_a_plan_is_the_run(client: Client) -> None:
    operations = client.operations
    mapped = await operations.map()
    assert sum(each.last - each.first + 1 for each in mapped.ranges) == 4096
    await operations.set_weight("s2", 3.0)
    plan = await operations.plan("users")
    assert isinstance(plan, PlanDocument)
    assert plan.moves
    assert {move.source for move in plan.moves} == {"s1"}
    assert await operations.plan("users") == plan, "nothing changed meanwhile"
    started = await operations.run(plan)
    assert (started.id, started.status, started.queued) == (plan.id, "running", len(plan.moves))
    assert (await operations.pause()).status == "paused"
    assert (await operations.resume()).status == "running"
    with pytest.raises(Refused) as refused:
        await operations.move_buckets([1], "s2")
    assert refused.value.facts["reason"] == "rebalance_under_way"
    assert (await operations.cancel()).status == "cancelled"
    assert (await operations.status()).rebalance is not None
    await operations.set_weight("s2", 1.0)


async def test_settings_and_buckets(client: Client) -> None:
    operations = client.operations
    before = await operations.settings()
    assert (await operations.change_settings(grace_s=7)).grace_s == 7
    assert await operations.change_settings(grace_s=before.grace_s) == before
    with pytest.raises(Refused):
        await operations.change_settings(moves_per_server=10_000)
    owned = await operations.buckets("s2")
    assert len(owned) == 2048
    assert {each.shard for each in owned} == {"s2"}
    balance = await operations.balance()
    assert set(balance.shards) == {"s1", "s2"}
    assert await operations.clean() == 0
