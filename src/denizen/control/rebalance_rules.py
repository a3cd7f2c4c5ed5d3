"""The rules for a rebalance as a whole: a plan is taken on, paused, resumed, cancelled, and is done by itself."""

from uuid import UUID

from msgspec.structs import replace

from denizen.control.commands import CancelRebalance, PauseRebalance, ResumeRebalance, StartRebalance
from denizen.control.move_rules import check_fits, the_map, undone
from denizen.control.plan import Plan, summary
from denizen.control.refusing import Refuse
from denizen.control.state import COMMITTED, ControlState, Rebalance, RebalanceStatus, Stage

UNDER_WAY = frozenset({RebalanceStatus.RUNNING, RebalanceStatus.PAUSED})


def start_rebalance(state: ControlState, command: StartRebalance) -> ControlState:
    """Take a plan on, if every move of it still fits."""
    plan, known = command.plan, state.rebalance
    if known is not None and known.id == plan.id:
        return state
    the_map(state)
    if known is not None and (known.status in UNDER_WAY or _uncommitted(state)):
        doing = known.status if known.status in UNDER_WAY else "still being undone"
        raise Refuse("rebalance_under_way", f"a rebalance is {doing}: let it end, or cancel it")
    if not plan.moves:
        raise Refuse("nothing_to_do", "the plan has no moves: the shards are balanced")
    if len({planned.bucket for planned in plan.moves}) != len(plan.moves):
        raise Refuse("bad_plan", "the plan moves a bucket twice")
    _check_plan(state, plan)
    rebalance = Rebalance(plan.id, RebalanceStatus.RUNNING, summary(plan), plan.moves, command.at_ms, command.at_ms)
    return replace(state, rebalance=rebalance)


def _check_plan(state: ControlState, plan: Plan) -> None:
    for planned in plan.moves:
        try:
            check_fits(state, planned.bucket, planned.source, planned.target)
        except Refuse as refusal:
            if refusal.code != "not_clean":  # the executor cleans before it begins such a move
                raise Refuse("plan_stale", f"the plan does not fit any more ({refusal}); make a new one") from refusal


def pause_rebalance(state: ControlState, command: PauseRebalance) -> ControlState:
    """Stop at the next safe place."""
    rebalance = _current(state, command.rebalance)
    if rebalance.status is RebalanceStatus.PAUSED:
        return state
    if rebalance.status is not RebalanceStatus.RUNNING:
        raise Refuse("not_running", f"the rebalance is {rebalance.status}; there is nothing to pause")
    return _status(state, rebalance, RebalanceStatus.PAUSED, command.at_ms)


def resume_rebalance(state: ControlState, command: ResumeRebalance) -> ControlState:
    """Go on after a pause."""
    rebalance = _current(state, command.rebalance)
    if rebalance.status is RebalanceStatus.RUNNING:
        return state
    if rebalance.status is not RebalanceStatus.PAUSED:
        raise Refuse("not_paused", f"the rebalance is {rebalance.status}; there is nothing to resume")
    return _status(state, rebalance, RebalanceStatus.RUNNING, command.at_ms)


def cancel_rebalance(state: ControlState, command: CancelRebalance) -> ControlState:
    """Forget what has not begun, undo what is not committed."""
    rebalance = _current(state, command.rebalance)
    if rebalance.status is RebalanceStatus.CANCELLED:
        return state
    if rebalance.status is RebalanceStatus.DONE:
        raise Refuse("rebalance_done", "the rebalance is done; going back is another one")
    moves = {
        id: move if move.stage in COMMITTED else undone(move, Stage.CANCELLED, "cancelled", command.at_ms)
        for id, move in state.moves.items()
    }
    cancelled = replace(rebalance, queue=(), cancelled=rebalance.cancelled + len(rebalance.queue))
    return _status(replace(state, moves=moves), cancelled, RebalanceStatus.CANCELLED, command.at_ms)


def finished_rebalance_is_done(state: ControlState, at_ms: int) -> ControlState:
    """A rebalance whose moves are all committed or undone is done. Looked at after every command."""
    rebalance = state.rebalance
    if rebalance is None or rebalance.status not in UNDER_WAY or rebalance.queue or _uncommitted(state):
        return state
    return _status(state, rebalance, RebalanceStatus.DONE, at_ms)


def _uncommitted(state: ControlState) -> bool:
    return any(move.stage not in COMMITTED for move in state.moves.values())


def _current(state: ControlState, id: UUID) -> Rebalance:
    if state.rebalance is None or state.rebalance.id != id:
        raise Refuse("no_such_rebalance", "there is no such rebalance, or a newer one has taken its place")
    return state.rebalance


def _status(state: ControlState, rebalance: Rebalance, status: RebalanceStatus, at_ms: int) -> ControlState:
    paused_ms = rebalance.paused_ms
    if rebalance.status is RebalanceStatus.PAUSED:
        paused_ms += at_ms - rebalance.since_ms
    return replace(state, rebalance=replace(rebalance, status=status, since_ms=at_ms, paused_ms=paused_ms))
