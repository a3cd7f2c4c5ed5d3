"""The routes for operators: a part of the table in routes.py. All of them need `admin` and a control plane."""

from typing import Final

from denizen import errors
from denizen.api import operations
from denizen.http.handlers import operators
from denizen.http.route import ADMIN, Query, Route
from denizen.limits import plan_body_bytes_max

_NO_SHARD: Final = (errors.ShardNotFound,)
_REFUSED: Final = (errors.Refused,)
_SHARD: Final = Query("shard", "Of this shard only.", {"type": "string", "minLength": 1, "maxLength": 64})

_SHARDS: Final = (
    Route(
        name="list_shards", method="GET", path="/v1/shards", handler=operators.list_shards, scope=ADMIN,
        summary="List the shards", reply=operations.ShardList,
    ),
    Route(
        name="add_shard", method="POST", path="/v1/shards", handler=operators.add_shard, scope=ADMIN, status=202,
        summary="Add a shard; it joins in a moment, and takes its share with the next rebalance",
        body=operations.NewShard, body_required=False, reply=operations.ShardDocument, problems=_REFUSED,
    ),
    Route(
        name="get_shard", method="GET", path="/v1/shards/{shard}", handler=operators.get_shard, scope=ADMIN,
        summary="Get a shard", reply=operations.ShardDocument, problems=_NO_SHARD,
    ),
    Route(
        name="change_shard", method="PATCH", path="/v1/shards/{shard}", handler=operators.change_shard, scope=ADMIN,
        summary="Change a shard's weight, for the next plan", body=operations.ShardChanges,
        reply=operations.ShardDocument, problems=(*_NO_SHARD, *_REFUSED),
    ),
    Route(
        name="drain_shard", method="POST", path="/v1/shards/{shard}:drain", handler=operators.drain_shard,
        scope=ADMIN, status=202, body=operations.Draining, body_required=False, reply=operations.ShardDocument,
        summary="Let a shard take nothing more; the next rebalance empties it, and then its server stops",
        problems=(*_NO_SHARD, *_REFUSED),
    ),
    Route(
        name="keep_shard", method="POST", path="/v1/shards/{shard}:keep", handler=operators.keep_shard, scope=ADMIN,
        summary="Keep a draining shard after all", reply=operations.ShardDocument, problems=(*_NO_SHARD, *_REFUSED),
    ),
    Route(
        name="remove_shard", method="POST", path="/v1/shards/{shard}:remove", handler=operators.remove_shard,
        scope=ADMIN, body=operations.Removing, body_required=False, reply=operations.ShardDocument,
        summary="Give up a shard that does not get ready, or whose server is gone for good",
        problems=(*_NO_SHARD, *_REFUSED),
    ),
)  # fmt: skip

_REBALANCE: Final = (
    Route(
        name="plan_rebalance", method="POST", path="/v1/rebalance:plan", handler=operators.plan_rebalance,
        scope=ADMIN, summary="Plan a rebalance: what it would do, move by move; changes nothing",
        body=operations.PlanRequest, body_required=False, reply=operations.PlanDocument, problems=_REFUSED,
    ),
    Route(
        name="run_rebalance", method="POST", path="/v1/rebalance", handler=operators.run_rebalance, scope=ADMIN,
        status=202, summary="Carry out a plan, exactly as it was given", body=operations.PlanDocument,
        body_bytes_max=plan_body_bytes_max, reply=operations.RebalanceDocument, problems=_REFUSED,
    ),
    Route(
        name="get_rebalance", method="GET", path="/v1/rebalance", handler=operators.get_rebalance, scope=ADMIN,
        summary="How far the rebalance is, and every move under way", reply=operations.RebalanceStatusDocument,
    ),
    Route(
        name="pause_rebalance", method="POST", path="/v1/rebalance:pause", handler=operators.pause_rebalance,
        scope=ADMIN, summary="Begin nothing more and stop at the next safe place; nothing is undone",
        reply=operations.RebalanceDocument, problems=_REFUSED,
    ),
    Route(
        name="resume_rebalance", method="POST", path="/v1/rebalance:resume", handler=operators.resume_rebalance,
        scope=ADMIN, summary="Go on with a paused rebalance", reply=operations.RebalanceDocument, problems=_REFUSED,
    ),
    Route(
        name="cancel_rebalance", method="POST", path="/v1/rebalance:cancel", handler=operators.cancel_rebalance,
        scope=ADMIN, summary="End a rebalance: moves that are not committed are undone",
        reply=operations.RebalanceDocument, problems=_REFUSED,
    ),
    Route(
        name="clean_rebalance", method="POST", path="/v1/rebalance:clean", handler=operators.clean_rebalance,
        scope=ADMIN, status=202, summary="Remove what sources keep of moved buckets now, without the grace",
        reply=operations.Cleaning, problems=_REFUSED,
    ),
    Route(
        name="get_balance", method="GET", path="/v1/rebalance/balance", handler=operators.get_balance, scope=ADMIN,
        summary="How even the shards are, measured now", reply=operations.MeasuredBalance,
    ),
    Route(
        name="get_rebalance_settings", method="GET", path="/v1/rebalance/settings", handler=operators.get_settings,
        scope=ADMIN, summary="How gently buckets are moved", reply=operations.RebalanceSettings,
    ),
    Route(
        name="change_rebalance_settings", method="PATCH", path="/v1/rebalance/settings",
        handler=operators.change_settings, scope=ADMIN, summary="Change how gently buckets are moved, at once",
        body=operations.SettingsChanges, reply=operations.RebalanceSettings, problems=_REFUSED,
    ),
)  # fmt: skip

_BUCKETS: Final = (
    Route(
        name="get_map", method="GET", path="/v1/map", handler=operators.get_map, scope=ADMIN,
        summary="Which shard owns each bucket", reply=operations.MapDocument,
    ),
    Route(
        name="list_buckets", method="GET", path="/v1/buckets", handler=operators.list_buckets, scope=ADMIN,
        summary="List the buckets, with their moves", reply=operations.BucketList, query=(_SHARD,),
        problems=_NO_SHARD,
    ),
    Route(
        name="move_buckets", method="POST", path="/v1/buckets:move", handler=operators.move_buckets, scope=ADMIN,
        status=202, summary="Move buckets to a shard, whatever that does to the balance",
        body=operations.BucketsToMove, reply=operations.RebalanceDocument, problems=(*_NO_SHARD, *_REFUSED),
    ),
)  # fmt: skip

OPERATORS_ROUTES: Final = (*_SHARDS, *_REBALANCE, *_BUCKETS)
