"""Which moves may be under way at a time: a cap for each server, as source or target. Pure.

A committed move that waits for its clean-up, or is cleaned, takes no place: cleaning has a lane of its own, one move at
a time for each server.
"""

from collections import Counter

from denizen.control.plan import PlannedMove
from denizen.control.state import COMMITTED, ControlState, MoveRecord, RebalanceStatus, Stage
from denizen.sharding.ids import ShardId


def to_begin(state: ControlState) -> list[PlannedMove]:
    """The moves of the queue that may begin now, in its order, as far as the servers have places."""
    rebalance = state.rebalance
    if rebalance is None or rebalance.status is not RebalanceStatus.RUNNING:
        return []
    busy = Counter[ShardId]()
    for move in state.moves.values():
        if move.stage not in COMMITTED:
            busy.update((move.source, move.target))
    begin, cap = [], state.settings.moves_per_server
    for planned in rebalance.queue:
        if busy[planned.source] < cap and busy[planned.target] < cap and cleaned_first(state, planned) is None:
            busy.update((planned.source, planned.target))
            begin.append(planned)
    return begin


def cleaned_first(state: ControlState, planned: PlannedMove) -> MoveRecord | None:
    """The earlier move whose copy is still where this one leads to: it is cleaned before this one may begin."""
    for move in state.moves.values():
        if move.bucket == planned.bucket and move.source == planned.target and move.stage in COMMITTED:
            return move
    return None


def to_hasten(state: ControlState) -> list[MoveRecord]:
    """Committed moves that queued ones wait for: their clean-up does not wait for the grace."""
    rebalance = state.rebalance
    if rebalance is None or rebalance.status is not RebalanceStatus.RUNNING:
        return []
    waiting = {(planned.bucket, planned.target) for planned in rebalance.queue}
    return [
        move
        for move in state.moves.values()
        if move.stage is Stage.COMMITTED and not move.hasty and (move.bucket, move.source) in waiting
    ]
