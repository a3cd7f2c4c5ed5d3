"""What a user of the library writes: a deterministic state machine."""

from collections.abc import Iterable
from typing import Any, Protocol


class StateMachine(Protocol):
    """The replicated state: every node applies the same commands in the same order.

    So: no clock, no randomness, no I/O in `apply`; put what is needed of them into the command. All three methods run
    on the event loop's thread.
    """

    def apply(self, index: int, command: bytes) -> Any:
        """Carry out a committed command and return its result, to be sent to whoever proposed it.

        The result is anything that MessagePack can hold. An exception refuses the command: it must leave the state
        unchanged and be raised on every node alike; the proposer gets it as `CommandFailed`.
        """

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The whole state as bytes. An iterable is consumed in a thread and must not see later changes."""

    def restore(self, snapshot: bytes) -> None:
        """Become the state that `snapshot` was made of, whatever the state is now."""
