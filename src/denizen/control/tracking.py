"""How far the work on one move is: rows, rate, trouble. In memory of the leader; what must last is in the log."""

from denizen.control.ports import Clock
from denizen.control.stages import HOLDING
from denizen.control.state import MoveRecord, Stage
from denizen.control.wire import MoveProgress
from denizen.moving.move import Copied

SMOOTHING = 0.3
"""The weight of the last measured rate against those before."""


class Tracker:
    """Follows one move through its stages."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stage: Stage | None = None
        self._step = ""
        self._trouble: str | None = None
        self._copied = Copied(0, 0, 0)
        self._at = 0.0
        self._rate = 0.0

    def entered(self, move: MoveRecord) -> None:
        """The move is in this stage, or begins it anew."""
        if move.stage is not self._stage:
            self._stage, self._copied, self._rate = move.stage, Copied(0, 0, 0), 0.0
        self._trouble, self._step, self._at = None, "", self._clock.monotonic()

    def begun(self, step: str) -> None:
        """This step is under way."""
        self._step, self._at = step, self._clock.monotonic()

    def progress(self, copied: Copied) -> None:
        """A copy or clean-up is this far."""
        now, more = self._clock.monotonic(), copied.rows - self._copied.rows
        if more > 0 and now > self._at:
            rate = more / (now - self._at)
            self._rate = rate if not self._rate else self._rate + SMOOTHING * (rate - self._rate)
            self._at = now
        self._copied, self._trouble = copied, None

    def failed(self, error: Exception) -> None:
        """The step failed, and is tried again."""
        self._trouble = str(error) or type(error).__name__

    def view(self, move: MoveRecord) -> MoveProgress:
        """The figures."""
        now_ms = self._clock.now_ms()
        return MoveProgress(
            move=str(move.id),
            stage=move.stage,
            source=move.source,
            target=move.target,
            bucket=move.bucket,
            rows=self._copied.rows,
            rows_total=self._copied.rows_total,
            bytes=self._copied.bytes,
            rows_per_s=round(self._rate, 1),
            step=self._step,
            seconds=max(now_ms - move.since_ms, 0) / 1_000,
            held_ms=float(max(now_ms - move.fenced_ms, 0)) if move.stage in HOLDING else 0.0,
            trouble=self._trouble,
        )
