"""Known bugs, to be put back for a while: they check the checkers.

Each leaves out one thing that the protocol of a move stands on. A simulation that does not find one within the stated
number of seeds would not find a new one of its kind either.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

from msgspec import Struct
from msgspec.structs import replace

from denizen.control import carrying, move_rules, rebalance_rules, stages
from denizen.control.commands import Committed, StageCommand, Verified
from denizen.control.sim.databases import Database
from denizen.control.stages import Do, Facts, Step
from denizen.control.state import MoveRecord, Settings, Stage
from denizen.moving.move import Head, Verdict, Verification
from denizen.sharding.ids import Epoch, Sequence


class Bug(Struct, frozen=True):
    """A known bug: what is wrong, within how many seeds of which profile it has to be found, how to put it back."""

    name: str
    what: str
    profile: str
    seeds_max: int
    put_back: Callable[[], AbstractContextManager[None]]


NextStep = Callable[[MoveRecord, Facts, Settings, int], Step]


@contextmanager
def _next_step(changed: Callable[[MoveRecord, Facts, Step], Step]) -> Iterator[None]:
    """Patch what `stages` decides."""

    def next_step(move: MoveRecord, facts: Facts, settings: Settings, now_ms: int, *, paused: bool) -> Step:
        return changed(move, facts, stages.next_step(move, facts, settings, now_ms, paused=paused))

    with patch.object(carrying, "next_step", next_step):
        yield


@contextmanager
def _open_before_fence() -> Iterator[None]:
    def open_first(move: MoveRecord, facts: Facts, step: Step) -> Step:
        if step is Do.FENCE and not facts.opened:
            return Do.OPEN
        return step

    with _next_step(open_first):
        yield


@contextmanager
def _commit_without_verify() -> Iterator[None]:
    def unseen(move: MoveRecord, facts: Facts, step: Step) -> Step:
        if step is Do.FINISH:
            return Verified(at_ms=move.since_ms, move=move.id, attempt=move.attempt)
        return step

    with _next_step(unseen):
        yield


@contextmanager
def _unknown_taken_for_equal() -> Iterator[None]:
    def believed(move: MoveRecord, facts: Facts, step: Step) -> Step:
        if facts.verification is not None:
            facts.verification = Verification(Verdict.EQUAL, Head(Sequence(0), 0))
        return step

    def undifferent(move: MoveRecord, facts: Facts, step: Step) -> Step:
        believed(move, facts, step)
        return stages.next_step(move, facts, Settings(), move.fenced_ms, paused=False) if _differs(step) else step

    with _next_step(undifferent):
        yield


def _differs(step: Step) -> bool:
    return isinstance(step, StageCommand) and "differ" in getattr(step, "reason", "")


@contextmanager
def _attempts_not_compared() -> Iterator[None]:
    with patch.object(Database, "check_attempts", False):
        yield


@contextmanager
def _turning_back_keeps_the_attempt() -> Iterator[None]:
    undone = move_rules.undone

    def keep(move: MoveRecord, then: Stage, reason: str, at_ms: int) -> MoveRecord:
        return replace(undone(move, then, reason, at_ms), attempt=move.attempt)

    with patch.object(move_rules, "undone", keep), patch.object(rebalance_rules, "undone", keep):
        yield


@contextmanager
def _reopened_without_bar() -> Iterator[None]:
    def unbarred(move: MoveRecord, facts: Facts, step: Step) -> Step:
        return Do.REOPEN if step is Do.BAR or (isinstance(step, Committed) and facts.barred is False) else step

    with _next_step(unbarred):
        yield


@contextmanager
def _cancel_forgets_the_fence() -> Iterator[None]:
    undone = move_rules.undone

    def forgetful(move: MoveRecord, then: Stage, reason: str, at_ms: int) -> MoveRecord:
        back = undone(move, then, reason, at_ms)
        if back is not move and back.stage is Stage.RELEASING and then is Stage.CANCELLED:
            return replace(back, stage=Stage.ABORTING, fence_epoch=None, may_be_open=False)
        return back

    with patch.object(move_rules, "undone", forgetful), patch.object(rebalance_rules, "undone", forgetful):
        yield


@contextmanager
def _map_keeps_the_epoch() -> Iterator[None]:
    def same_epoch(move: MoveRecord) -> Epoch:
        return move.epoch

    with patch.object(MoveRecord, "open_epoch", property(same_epoch)):
        yield


@contextmanager
def _cancelled_without_abort() -> Iterator[None]:
    def unasked(move: MoveRecord, facts: Facts, step: Step) -> Step:
        if step is Do.ABORT:
            facts.aborted = True
            return stages.next_step(move, facts, Settings(), move.since_ms, paused=False)
        return step

    with _next_step(unasked):
        yield


def _unclosed(stage: Stage) -> AbstractContextManager[None]:
    def unclosed(move: MoveRecord, facts: Facts, step: Step) -> Step:
        if step is Do.CLOSE and move.stage is stage:
            return Committed(at_ms=move.since_ms, move=move.id, attempt=move.attempt)
        return step

    return _next_step(unclosed)


BUGS = {
    bug.name: bug
    for bug in (
        Bug("open-before-fence", "the target is opened before the source is fenced", "drawn", 20, _open_before_fence),
        Bug(
            "commit-without-verify", "the fence is taken for the proof of equality", "drawn", 20, _commit_without_verify
        ),
        Bug(
            "unequal-taken-for-equal",
            "what the comparison says is not looked at",
            "drawn",
            40,
            _unknown_taken_for_equal,
        ),
        Bug(
            "attempts-not-compared",
            "the databases do late work of older attempts",
            "belated",
            60,
            _attempts_not_compared,
        ),
        Bug(
            "attempt-kept",
            "a move turns back under the attempt it had",
            "belated",
            60,
            _turning_back_keeps_the_attempt,
        ),
        Bug(
            "reopened-without-bar",
            "the source is reopened though the target may be open",
            "belated",
            40,
            _reopened_without_bar,
        ),
        Bug("cancel-forgets-the-fence", "a cancel leaves the source fenced", "drawn", 30, _cancel_forgets_the_fence),
        Bug("epoch-kept", "a bucket opens at the epoch it had", "drawn", 20, _map_keeps_the_epoch),
        Bug(
            "committed-without-close",
            "the map moves while the source still answers reads",
            "drawn",
            20,
            lambda: _unclosed(Stage.VERIFIED),
        ),
        Bug(
            "rolled-forward-without-close",
            "the same, after the fence was given up though the target is open",
            "belated",
            40,
            lambda: _unclosed(Stage.RELEASING),
        ),
        Bug("cancelled-without-abort", "a cancel leaves the target's copy", "drawn", 20, _cancelled_without_abort),
    )
}
