"""The rules for the deployment's parts: founding, nodes, shards, settings. Pure: (state, command) to the next state.

A rule returns the state it was given if the command was applied before, and raises `Refuse` if it does not hold.
"""

from collections.abc import Callable

from msgspec.structs import asdict, replace

from denizen import limits
from denizen.control.commands import (
    AddShard,
    ChangeSettings,
    DrainShard,
    Founded,
    JoinNode,
    KeepShard,
    RemoveShard,
    SetWeight,
    ShardReady,
)
from denizen.control.loss_rules import without_lost
from denizen.control.move_rules import without_queued
from denizen.control.refusing import Refuse
from denizen.control.state import ControlState, NodeRecord, Settings, Shard, ShardStatus
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import ShardId


def founded(state: ControlState, command: Founded) -> ControlState:
    """The first command of a deployment."""
    if state.deployment is not None:
        if state.deployment == command.deployment:
            return state
        raise Refuse("already_founded", f"this control plane belongs to deployment {state.deployment}")
    if set(command.map.shards) != set(command.shards):
        raise Refuse("map_does_not_fit", "the first map must name exactly the shards that the deployment has")
    told = (
        (command.shards, ShardStatus.ACTIVE),
        (command.joining, ShardStatus.JOINING),
        (command.removed, ShardStatus.REMOVED),
    )
    shards = {
        shard: Shard(shard, dsn, 1.0, status, command.at_ms, command.at_ms)
        for known, status in told
        for shard, dsn in known.items()
    }
    in_order = dict(sorted(shards.items(), key=lambda item: (len(item[0]), item[0])))  # s2 before s10
    return replace(state, deployment=command.deployment, map=command.map, shards=in_order)


def join_node(state: ControlState, command: JoinNode) -> ControlState:
    """Where a node listens."""
    known = state.nodes.get(command.node)
    if known is not None and (known.raft_address, known.address) == (command.raft_address, command.address):
        return state
    record = NodeRecord(command.node, command.raft_address, command.address, command.at_ms)
    return replace(state, nodes=dict(sorted((state.nodes | {command.node: record}).items())))


def add_shard(state: ControlState, command: AddShard) -> ControlState:
    """Name a shard; its server comes later."""
    _map(state)
    _weight(command.weight)
    known = state.shards.get(command.shard)
    if known is not None:
        if known.status is ShardStatus.JOINING and known.dsn == command.dsn:
            return state
        raise Refuse("shard_exists", f"there is or was a shard {command.shard}; a shard's id is never used again")
    if sum(shard.status is not ShardStatus.REMOVED for shard in state.shards.values()) >= limits.shards_max:
        raise Refuse("too_many_shards", f"a deployment has at most {limits.shards_max} shards")
    if not command.shard or len(command.shard) > limits.control_shard_id_chars_max or not command.shard.isalnum():
        raise Refuse("bad_shard_id", "a shard's id is made of letters and digits, as in s3")
    shard = Shard(command.shard, command.dsn, command.weight, ShardStatus.JOINING, command.at_ms, command.at_ms)
    return replace(state, shards=state.shards | {shard.id: shard})


def shard_ready(state: ControlState, command: ShardReady) -> ControlState:
    """The shard may receive buckets. The map names it, so that gateways connect before the first bucket is there."""
    shard, known = _shard(state, command.shard), _map(state)
    if shard.status is ShardStatus.ACTIVE:
        return state
    if shard.status is not ShardStatus.JOINING:
        raise Refuse("wrong_shard_status", f"shard {shard.id} is {shard.status}, not joining")
    shards = known.shards if shard.id in known.shards else (*known.shards, shard.id)
    named = replace(known, version=known.version + 1, shards=shards)
    return replace(_with_status(state, shard, ShardStatus.ACTIVE, command.at_ms), map=named)


def set_weight(state: ControlState, command: SetWeight) -> ControlState:
    """The part of a shard in the next plan."""
    shard = _shard(state, command.shard)
    _weight(command.weight)
    if shard.status is ShardStatus.REMOVED:
        raise Refuse("wrong_shard_status", f"shard {shard.id} is removed")
    if shard.weight == command.weight:
        return state
    return replace(state, shards=state.shards | {shard.id: replace(shard, weight=command.weight)})


def drain_shard(state: ControlState, command: DrainShard) -> ControlState:
    """The shard takes nothing any more, and the next plan empties it."""
    shard = _shard(state, command.shard)
    if shard.status in (ShardStatus.DRAINING, ShardStatus.DRAINED):  # the last word about its data counts
        if shard.purge == command.purge:
            return state
        return replace(state, shards=state.shards | {shard.id: replace(shard, purge=command.purge)})
    if shard.status is not ShardStatus.ACTIVE:
        raise Refuse("wrong_shard_status", f"shard {shard.id} is {shard.status}; only an active shard can be drained")
    if not any(other.status is ShardStatus.ACTIVE and other.id != shard.id for other in state.shards.values()):
        raise Refuse("last_shard", f"{shard.id} is the last active shard: add another one before draining it")
    drained = _with_status(state, replace(shard, purge=command.purge), ShardStatus.DRAINING, command.at_ms)
    return without_queued(drained, shard.id)


def keep_shard(state: ControlState, command: KeepShard) -> ControlState:
    """A draining shard stays after all."""
    shard = _shard(state, command.shard)
    if shard.status is ShardStatus.ACTIVE:
        return state
    if shard.status is not ShardStatus.DRAINING:
        raise Refuse("wrong_shard_status", f"shard {shard.id} is {shard.status}; only a draining shard can be kept")
    return _with_status(state, replace(shard, purge=False), ShardStatus.ACTIVE, command.at_ms)


def remove_shard(state: ControlState, command: RemoveShard) -> ControlState:
    """The shard is gone: the map does not name it any more."""
    shard, known = _shard(state, command.shard), _map(state)
    if shard.status is ShardStatus.REMOVED:
        return state
    if shard.status not in (ShardStatus.DRAINED, ShardStatus.JOINING):
        if not command.lost:
            raise Refuse(
                "wrong_shard_status", f"shard {shard.id} is {shard.status}: drain it first, and let its buckets leave"
            )
        if _owns(known, shard.id):
            raise Refuse("shard_owns_buckets", f"shard {shard.id} owns buckets: restore it, they are nowhere else")
        state = without_lost(state, shard.id, command.at_ms)
    return replace(
        _with_status(state, shard, ShardStatus.REMOVED, command.at_ms), map=_map_without(known, command.shard)
    )


def change_settings(state: ControlState, command: ChangeSettings) -> ControlState:
    """Some settings change."""
    wishes = {name: value for name, value in asdict(command).items() if name != "at_ms" and value is not None}
    for name, value in wishes.items():
        least, most = limits.control_settings[name]
        if not least <= value <= most:
            raise Refuse("bad_setting", f"{name} must be between {least} and {most}")
    settings: Settings = replace(state.settings, **wishes)
    return state if settings == state.settings else replace(state, settings=settings)


def empty_shards_are_drained(state: ControlState, at_ms: int) -> ControlState:
    """A draining shard that owns nothing, with no move to end on it, is drained. Looked at after every command."""
    for shard in state.shards.values():
        if shard.status is ShardStatus.DRAINING and not _in_use(state, shard.id):
            state = _with_status(state, shard, ShardStatus.DRAINED, at_ms)
    return state


def _in_use(state: ControlState, shard: ShardId) -> bool:
    return _owns(_map(state), shard) or any(shard in (move.source, move.target) for move in state.moves.values())


def _owns(known: BucketMap, shard: ShardId) -> bool:
    return shard in known.shards and known.shards.index(shard) in known.owners


def _map(state: ControlState) -> BucketMap:
    if state.map is None:
        raise Refuse("not_founded", "the deployment is not founded yet: start it with `denizen up`")
    return state.map


def _shard(state: ControlState, id: ShardId) -> Shard:
    shard = state.shards.get(id)
    if shard is None:
        raise Refuse("no_such_shard", f"there is no shard {id}")
    return shard


def _weight(weight: float) -> None:
    if not limits.control_weight_min <= weight <= limits.control_weight_max:
        raise Refuse("bad_weight", f"a weight is between {limits.control_weight_min} and {limits.control_weight_max}")


def _with_status(state: ControlState, shard: Shard, status: ShardStatus, at_ms: int) -> ControlState:
    return replace(state, shards=state.shards | {shard.id: replace(shard, status=status, since_ms=at_ms)})


def _map_without(known: BucketMap, shard: ShardId) -> BucketMap:
    if shard not in known.shards:
        return known
    gone = known.shards.index(shard)
    renumber: Callable[[int], int] = lambda owner: owner - (owner > gone)  # noqa: E731
    return replace(
        known,
        version=known.version + 1,
        shards=tuple(other for other in known.shards if other != shard),
        owners=tuple(map(renumber, known.owners)),
    )
