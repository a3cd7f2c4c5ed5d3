"""What one command has prepared in other buckets (see login_names.py), for as long as the command is tried.

A command that loses a race for its user's stream is decided anew and appended again. If the names that it changes
elsewhere are the same as before, they stay prepared, and it keeps its id, under which it can be done only once. Whoever
prepared them anew each time would be slower than who changes no names, and lose every race, an erasure for example.
"""

import asyncio
from types import TracebackType
from uuid import UUID

from denizen import limits
from denizen.errors import DenizenError, OutcomeUnknown
from denizen.service.login_names import Change, LoginNames
from denizen.users.rejections import Rejected


class Preparation:
    """Use it as `async with` around all attempts of one command.

    At the end, what is prepared still is given back. Unless the command may have been done, or was cut off: then it is
    the sweeper's work, which asks the user's stream.
    """

    def __init__(self, names: LoginNames, actor: str) -> None:
        self._names = names
        self._actor = actor
        self._kept: Change | None = None
        self._until = 0.0

    async def prepare(self, change: Change) -> UUID:
        """Have `change` prepared; the id under which to append it. Raises what `LoginNames.prepare` does.

        For a bounded time only, for others wait for these names, and the sweeper settles what takes too long.
        """
        now = asyncio.get_running_loop().time()
        if self._kept is not None:
            if self._kept.steps() == change.steps() and now < self._until:
                return self._kept.command_id
            await self.undo()
        if change.steps():
            self._until = now + limits.names_prepared_s
            await self._names.prepare(change, self._actor)
            self._kept = change
        return change.command_id

    def finish(self) -> None:
        """The command was done."""
        if (change := self._taken()) is not None:
            self._names.finish(change, self._actor)

    async def settle(self) -> None:
        """The command, or another one under its idempotency key, was done before."""
        if (change := self._taken()) is not None:
            await self._names.settle_all(change)

    async def undo(self) -> None:
        """The command was refused, and is not tried again under this id."""
        if (change := self._taken()) is not None:
            await self._names.undo(change, self._actor)

    def _taken(self) -> Change | None:
        change, self._kept = self._kept, None
        return change

    async def __aenter__(self) -> "Preparation":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, DenizenError | Rejected) and not isinstance(error, OutcomeUnknown)):
            await self.undo()
