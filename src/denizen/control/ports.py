"""What the executor needs of the world: two servers' hands (`Mover`), a word in the log (`Control`), a clock; and what
the planner needs to know of the buckets.

Each port says what it guarantees; the simulation implements them over a model, the product over PostgreSQL and Raft.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from denizen.control.commands import Command, Reply
from denizen.control.state import ControlState
from denizen.moving.move import Copied, Head, Move, Prepared, Verification
from denizen.sharding.ids import Bucket, Epoch, ShardId


class Mover(Protocol):
    """The steps of a move on its two servers.

    Guarantees, for each step: it may be repeated, and a step that was done is success again; it may be cancelled at
    any await; what it does on a server is one transaction (or several, each as below) that first locks the bucket's
    row, refuses an attempt lower than one seen there for this move (`StaleAttempt`), and remembers this attempt if it
    is higher; it returns only after its commit. A step that raises may have been done, and may even be done later.
    Errors are `DenizenError`s (see `denizen.moving.errors`); those that are `retryable` are worth repeating.
    """

    async def prepare(self, move: Move) -> Prepared:
        """Check what can be checked: same migrations, the source owns the bucket at `move.epoch`, room. The target gets
        the row `incoming` for this move; left-overs of other, ended moves are removed from it. If the row is this
        move's already, nothing is removed.
        """

    async def copy(self, move: Move, progress: Callable[[Copied], None]) -> Copied:
        """Copy the source's events up to its head, in order, from where the target stands. Resumable."""

    async def tail(self, move: Move) -> int:
        """Copy what came since; how many events are missing afterwards."""

    async def fence(self, move: Move, epoch: Epoch) -> Head:
        """The source's row becomes `fenced` at `epoch`, if it is `open` at `move.epoch`; or it is that already.
        Waits for the row's lock a bounded time.
        """

    async def finish(self, move: Move, epoch: Epoch) -> Verification:
        """Under the fence: copy the last events and what else belongs to the bucket, then compare both copies. Nothing
        is taken for equal that was not compared; a source that is not fenced for this move is an error.
        """

    async def open(self, move: Move, epoch: Epoch) -> None:
        """The target's row, `incoming` for this move, becomes `open` at `epoch`; or it is that already."""

    async def close(self, move: Move, epoch: Epoch) -> None:
        """The source's row becomes `moved` at `epoch`, and answers so for ever."""

    async def bar(self, move: Move) -> bool:
        """The target will never open for a lower attempt; the copy stays. False: it is open for this move already."""

    async def reopen(self, move: Move, epoch: Epoch) -> None:
        """The source's row becomes `open` at `epoch` if it is `fenced` at `epoch - 1`, or still `open` at `move.epoch`
        (the fence had not come to pass); or it is that already.
        """

    async def abort(self, move: Move, progress: Callable[[Copied], None]) -> bool:
        """As `bar`, and the target's copy is removed, so that nothing of this move is left there, nor comes back by a
        late step. False: it is open for this move already.
        """

    async def clean(self, move: Move, progress: Callable[[Copied], None]) -> Copied:
        """Remove the source's copy, at a limited rate; its row stays `moved`, for this move."""


class Control(Protocol):
    """The replicated state, from the node that leads (or believes so)."""

    @property
    def state(self) -> ControlState:
        """What this node has applied."""

    async def propose(self, command: Command) -> Reply:
        """Have a command decided. Raises `RaftError`: after `OutcomeUnknown` it may be applied, now or later."""

    async def changed(self, revision: int, timeout_s: float) -> ControlState:
        """The state here as soon as it is newer than that revision, or as it is when the time is over."""


class Clock(Protocol):
    """Time, so that a simulation can have its own."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, for what is written down."""

    def monotonic(self) -> float:
        """Seconds, for durations."""


class BucketMeasures(Struct, frozen=True, array_like=True):
    """What a bucket weighs. `requests` is per second."""

    users: int
    bytes: int
    requests: float


class Measured(Struct, frozen=True):
    """What every bucket weighs; `degraded` names shards that did not answer, and why."""

    buckets: Mapping[Bucket, BucketMeasures]
    degraded: Mapping[ShardId, str] = {}
