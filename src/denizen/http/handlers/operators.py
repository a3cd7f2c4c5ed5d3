"""Shards, rebalances, buckets and the map: the operators' verbs, for `admin` only."""

from denizen.api.operations import (
    BucketList,
    BucketsToMove,
    Cleaning,
    Draining,
    NewShard,
    PlanDocument,
    PlanRequest,
    Removing,
    SettingsChanges,
    ShardChanges,
    ShardList,
)
from denizen.errors import Unavailable
from denizen.http.replies import Reply, json_reply
from denizen.http.requests import Request, as_document
from denizen.http.services import Services
from denizen.operators.desk import Desk


def _desk(services: Services) -> Desk:
    if services.desk is None:
        raise Unavailable("this gateway has no control plane")
    return services.desk


async def list_shards(services: Services, request: Request) -> Reply:
    """GET /v1/shards"""
    return json_reply(ShardList(await _desk(services).shards()))


async def add_shard(services: Services, request: Request) -> Reply:
    """POST /v1/shards"""
    wanted = as_document(await request.optional_body(), NewShard)
    shard = await _desk(services).add_shard(wanted.dsn, wanted.weight)
    return json_reply(shard, 202, [("location", f"/v1/shards/{shard.id}")])


async def get_shard(services: Services, request: Request) -> Reply:
    """GET /v1/shards/{shard}"""
    return json_reply(await _desk(services).shard(request.params["shard"]))


async def change_shard(services: Services, request: Request) -> Reply:
    """PATCH /v1/shards/{shard}"""
    changes = await request.document(ShardChanges)
    return json_reply(await _desk(services).set_weight(request.params["shard"], changes.weight))


async def drain_shard(services: Services, request: Request) -> Reply:
    """POST /v1/shards/{shard}:drain"""
    how = as_document(await request.optional_body(), Draining)
    return json_reply(await _desk(services).drain(request.params["shard"], purge=how.purge), 202)


async def keep_shard(services: Services, request: Request) -> Reply:
    """POST /v1/shards/{shard}:keep"""
    return json_reply(await _desk(services).keep(request.params["shard"]))


async def remove_shard(services: Services, request: Request) -> Reply:
    """POST /v1/shards/{shard}:remove"""
    how = as_document(await request.optional_body(), Removing)
    return json_reply(await _desk(services).remove(request.params["shard"], lost=how.lost))


async def get_balance(services: Services, request: Request) -> Reply:
    """GET /v1/rebalance/balance"""
    return json_reply(await _desk(services).balance())


async def clean_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance:clean"""
    return json_reply(Cleaning(await _desk(services).clean()), 202)


async def plan_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance:plan"""
    asked = as_document(await request.optional_body(), PlanRequest)
    return json_reply(await _desk(services).plan(asked.by))


async def run_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance"""
    return json_reply(await _desk(services).run(await request.document(PlanDocument)), 202)


async def get_rebalance(services: Services, request: Request) -> Reply:
    """GET /v1/rebalance"""
    return json_reply(await _desk(services).status())


async def pause_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance:pause"""
    return json_reply(await _desk(services).pause())


async def resume_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance:resume"""
    return json_reply(await _desk(services).resume())


async def cancel_rebalance(services: Services, request: Request) -> Reply:
    """POST /v1/rebalance:cancel"""
    return json_reply(await _desk(services).cancel())


async def get_settings(services: Services, request: Request) -> Reply:
    """GET /v1/rebalance/settings"""
    return json_reply(await _desk(services).settings())


async def change_settings(services: Services, request: Request) -> Reply:
    """PATCH /v1/rebalance/settings"""
    return json_reply(await _desk(services).change_settings(await request.document(SettingsChanges)))


async def get_map(services: Services, request: Request) -> Reply:
    """GET /v1/map"""
    return json_reply(await _desk(services).map())


async def list_buckets(services: Services, request: Request) -> Reply:
    """GET /v1/buckets"""
    return json_reply(BucketList(await _desk(services).buckets(request.query.get("shard"))))


async def move_buckets(services: Services, request: Request) -> Reply:
    """POST /v1/buckets:move"""
    wanted = await request.document(BucketsToMove)
    desk = _desk(services)
    return json_reply(await desk.run(await desk.plan_of_moves(wanted.buckets, wanted.to)), 202)
