"""The rule for a shard whose server is gone for good, by an operator's word: nothing is asked of it any more.

It must own nothing, so nothing is lost with it that the map speaks of. Moves to it end without its answer; a source
that may be fenced for one, or closed, is reopened first. That is safe if the word is true, even for a target that may
be open: it never runs again. No map ever named it, so nothing is lost with it but what a gateway, told by the shards
themselves, wrote there in the moment before the commit.
"""

from msgspec.structs import replace

from denizen.control.move_rules import BEFORE_FENCE, counted, put_move, undone, without_queued
from denizen.control.state import COMMITTED, ControlState, MoveRecord, Stage
from denizen.sharding.ids import ShardId


def without_lost(state: ControlState, shard: ShardId, at_ms: int) -> ControlState:
    """The state in which no move waits for this shard."""
    state = without_queued(state, shard)
    for move in state.moves.values():
        if move.source == shard:
            state = put_move(state, replace(move, stage=Stage.DONE, since_ms=at_ms))  # its copy went with the server
        elif move.target == shard and move.stage not in COMMITTED:
            state = _target_lost(state, move, at_ms)
    return state


def _target_lost(state: ControlState, move: MoveRecord, at_ms: int) -> ControlState:
    reason = f"shard {move.target} is lost"
    if move.stage in BEFORE_FENCE or move.stage is Stage.ABORTING:
        then = move.then if move.stage is Stage.ABORTING and move.then is not None else Stage.FAILED
        ended = replace(move, stage=then, since_ms=at_ms, reason=move.reason or reason)
        cancelled = then is Stage.CANCELLED
        return counted(put_move(state, ended), ended, at_ms, cancelled=int(cancelled), failed=int(not cancelled))
    back = undone(move, Stage.FAILED, reason, at_ms)
    return put_move(state, replace(back, may_be_open=False))
