"""What is next for a move: a pure function of its record, of what the databases answered, and of the time.

    stage       what is done on the servers                 what is then said in the log
    planned     prepare                                     Prepared
    copying     copy                                        CopyFinished
    tailing     tail, until little is missing               FenceIntended       gives out the fence's epoch
    fenced      fence, finish (last events, comparison)     Verified            from here the target may open
    verified    open, close                                 Committed           the map moves
    committed   close, if not yet; then the grace           CleanStarted
    cleaning    clean                                       Cleaned

    releasing   bar (if the target may be open), reopen     Reopened
                if the target is open: close                Committed
    aborting    abort                                       Aborted

The source is closed as soon as the target is open, so that no gateway reads there what others have changed since. If it
does not answer then, the move goes on all the same: writes are held, and it is asked again after the commit.

What was answered (`Facts`), but that the source is closed, is forgotten whenever stage or attempt change, and by a new
leader: everything can be asked again.
"""

from enum import StrEnum

from msgspec import Struct

from denizen import limits
from denizen.control.commands import (
    Aborted,
    Cleaned,
    CleanStarted,
    Committed,
    CopyFinished,
    FenceIntended,
    GiveUp,
    Prepared,
    Reopened,
    StageCommand,
    Verified,
)
from denizen.control.state import MoveRecord, Settings, Stage
from denizen.invariants import invariant
from denizen.moving import move as moving


class Do(StrEnum):
    """The steps of the `Mover`, by the names of its methods."""

    PREPARE = "prepare"
    COPY = "copy"
    TAIL = "tail"
    FENCE = "fence"
    FINISH = "finish"
    OPEN = "open"
    CLOSE = "close"
    BAR = "bar"
    REOPEN = "reopen"
    ABORT = "abort"
    CLEAN = "clean"


class Wait(Struct, frozen=True):
    """Nothing can be done before this time (Unix milliseconds), or before the state changes (None)."""

    until_ms: int | None = None


Step = Do | StageCommand | Wait

HOLDING = frozenset({Stage.FENCED, Stage.VERIFIED, Stage.RELEASING})
"""Stages in which writes to the bucket may be held: nothing waits in them, not for a pause either."""

PAUSABLE = frozenset({Stage.PLANNED, Stage.COPYING, Stage.TAILING, Stage.CLEANING})
"""Stages that a pause stops in the middle."""


class Facts(Struct):
    """What the databases have answered in this stage, to this attempt."""

    prepared: moving.Prepared | None = None
    copied: bool = False
    missing: int | None = None
    fenced: bool = False
    verification: moving.Verification | None = None
    opened: bool = False
    closed: bool = False
    not_closed: bool = False
    """The source did not answer when it was to be closed."""
    barred: bool | None = None
    reopened: bool = False
    aborted: bool | None = None
    cleaned: bool = False


def next_step(move: MoveRecord, facts: Facts, settings: Settings, now_ms: int, *, paused: bool) -> Step:
    """What to do, what to say, or how long to wait."""
    if paused and move.stage in PAUSABLE:
        return Wait()
    match move.stage:
        case Stage.PLANNED | Stage.COPYING | Stage.TAILING:
            return _on_the_way(move, facts, now_ms)
        case Stage.FENCED | Stage.VERIFIED:
            return _under_the_fence(move, facts, settings, now_ms)
        case Stage.RELEASING | Stage.ABORTING:
            return _back(move, facts, now_ms)
        case Stage.COMMITTED | Stage.CLEANING:
            return _afterwards(move, facts, settings, now_ms, paused=paused)
    return Wait()


def _on_the_way(move: MoveRecord, facts: Facts, now_ms: int) -> Step:
    if move.stage is Stage.PLANNED:
        if facts.prepared is None:
            return Do.PREPARE
        told = facts.prepared
        return Prepared(at_ms=now_ms, move=move.id, attempt=move.attempt, events=told.events, bytes=told.bytes)
    if move.stage is Stage.COPYING:
        return CopyFinished(at_ms=now_ms, move=move.id, attempt=move.attempt) if facts.copied else Do.COPY
    if now_ms < move.not_before_ms:
        return Wait(move.not_before_ms)
    if facts.missing is None or facts.missing > limits.move_fence_events_max:
        return Do.TAIL
    return FenceIntended(at_ms=now_ms, move=move.id, attempt=move.attempt)


def _under_the_fence(move: MoveRecord, facts: Facts, settings: Settings, now_ms: int) -> Step:
    if facts.opened:
        return _open(move, facts, now_ms)
    told = facts.verification
    if told is not None and told.verdict is moving.Verdict.DIFFERENT:
        return give_up(move, now_ms, "the copies differ: " + "; ".join(told.differences), fail=True)
    if now_ms - move.fenced_ms > settings.hold_budget_ms:
        return give_up(move, now_ms, f"writes were held for more than {settings.hold_budget_ms} ms")
    if move.stage is Stage.VERIFIED:
        return Do.OPEN
    if not facts.fenced:
        return Do.FENCE
    if told is None or told.verdict is not moving.Verdict.EQUAL:
        return Do.FINISH
    return Verified(at_ms=now_ms, move=move.id, attempt=move.attempt)


def _open(move: MoveRecord, facts: Facts, now_ms: int) -> Step:
    """The target is open. Before others learn of it, nobody is to read at the source any more."""
    if not facts.closed and not facts.not_closed:
        return Do.CLOSE
    return Committed(at_ms=now_ms, move=move.id, attempt=move.attempt)


def _back(move: MoveRecord, facts: Facts, now_ms: int) -> Step:
    """The target first: only when it can never open, the source may."""
    if move.stage is Stage.ABORTING:
        if facts.aborted is None:
            return Do.ABORT
        invariant(facts.aborted, "a move that is undone was never open", move=move.id, bucket=move.bucket)
        return Aborted(at_ms=now_ms, move=move.id, attempt=move.attempt)
    if move.may_be_open:
        if facts.barred is None:
            return Do.BAR
        if not facts.barred:
            return _open(move, facts, now_ms)
    if not facts.reopened:
        return Do.REOPEN
    return Reopened(at_ms=now_ms, move=move.id, attempt=move.attempt)


def _afterwards(move: MoveRecord, facts: Facts, settings: Settings, now_ms: int, *, paused: bool) -> Step:
    if move.stage is Stage.CLEANING:
        return Cleaned(at_ms=now_ms, move=move.id, attempt=move.attempt) if facts.cleaned else Do.CLEAN
    if not facts.closed:
        return Do.CLOSE
    if move.hasty:
        return CleanStarted(at_ms=now_ms, move=move.id, attempt=move.attempt)
    if paused:
        return Wait()
    due_ms = move.since_ms + settings.grace_s * 1_000
    return CleanStarted(at_ms=now_ms, move=move.id, attempt=move.attempt) if now_ms >= due_ms else Wait(due_ms)


def give_up(move: MoveRecord, now_ms: int, reason: str, *, fail: bool = False) -> GiveUp:
    """Turn back; unless it failed for good, the pause before the next fence gets longer each time."""
    pause_ms = min(limits.fence_retry_ms_min << min(move.holds, 16), limits.fence_retry_ms_max)
    return GiveUp(
        at_ms=now_ms,
        move=move.id,
        attempt=move.attempt,
        reason=reason[: limits.move_reason_chars_max],
        fail=fail,
        not_before_ms=now_ms + pause_ms,
    )
