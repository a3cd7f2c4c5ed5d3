"""Lanes: requests that arrive together go to the server together.

A lane owns one connection and a bounded queue. While one group is at the server, the next one gathers; so the group
grows with the load, and one round trip and one commit serve many. A shard's buckets are split over its lanes, so that
two groups never wait for each other's locks.

A lane is told how to perform a group (`Work`). If the connection breaks, it reconnects and asks again until the
deadline: the work must be safe to repeat. What cannot be answered by then fails as `Unavailable` if it never left
this process, and as the work's own doubt (outcome unknown, for a write) if it did.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import asyncpg

from denizen import limits
from denizen.errors import DenizenError, Overloaded, Unavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answered_co = TypeVar("Answered_co", covariant=True)
Connect = Callable[[], Awaitable[asyncpg.Connection]]

# The server broke off, or is not there: what it had been asked may or may not have happened.
BROKEN = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncio.TimeoutError,
)
# The server undid the whole group for a reason that passes.
PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
)


class Work(Protocol[Asked_contra, Answered_co]):
    """What a lane does with a group of requests."""

    group_max: int
    deadline_s: float

    def keys(self, request: Asked_contra) -> tuple[object, ...]:
        """What this request must be alone with in its group: two requests that share a key go one after the other."""
        ...

    async def perform(
        self, connection: asyncpg.Connection, requests: Sequence[Asked_contra]
    ) -> Sequence[Answered_co | DenizenError]:
        """Ask the server; an answer (or an error to raise) for each request, in order. Must be safe to repeat."""
        ...

    def doubt(self, cause: BaseException) -> DenizenError:
        """The error for a request that was sent and never answered."""
        ...


class _Item(Generic[Request, Answer]):
    __slots__ = ("future", "request", "sent")

    def __init__(self, request: Request, future: "asyncio.Future[Answer]") -> None:
        self.request = request
        self.future = future
        self.sent = False


class Lane(Generic[Request, Answer]):
    """One connection with its queue. Start it, `ask` it, stop it: it finishes what it has."""

    def __init__(self, connect: Connect, work: Work[Request, Answer], queue_max: int) -> None:
        self._connect = connect
        self._work = work
        self._queue_max = queue_max
        self._queue: deque[_Item[Request, Answer]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._connection: asyncpg.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to serve, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Serve what is queued, then close the connection."""
        self._stopping = True
        self._notify()
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await _close(self._connection)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def ask(self, request: Request) -> "asyncio.Future[Answer]":
        """Queue a request; the future has its answer, or a `DenizenError`."""
        if self._stopping:
            raise Unavailable("this gateway is stopping; ask another")
        if len(self._queue) >= self._queue_max:
            raise Overloaded("too many requests wait for this shard; slow down and try again")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Item(request, future))
        self._notify()
        return future

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
            await asyncio.sleep(0)  # let everything that is ready now join the group
            group = self._take()
            if group:
                await self._serve(group, loop.time() + self._work.deadline_s)

    def _take(self) -> list[_Item[Request, Answer]]:
        """The next group: in order, without two that share a key, without those that nobody waits for any more."""
        queue, work = self._queue, self._work
        group: list[_Item[Request, Answer]] = []
        later: list[_Item[Request, Answer]] = []
        seen: set[object] = set()
        while queue and len(group) < work.group_max:
            item = queue.popleft()
            if item.future.done():
                continue
            keys = work.keys(item.request)
            if seen.isdisjoint(keys):
                group.append(item)
            else:
                later.append(item)
            seen.update(keys)  # also those of a postponed request: the order of each key is kept
        queue.extendleft(reversed(later))
        return group

    async def _serve(self, group: list[_Item[Request, Answer]], deadline: float) -> None:
        """Get the group's answers, across broken connections, until the deadline."""
        loop = asyncio.get_running_loop()
        pause = limits.reconnect_pause_min_s
        while True:
            try:
                answers = await self._attempt(group)
            except (*BROKEN, *PASSING) as error:
                if isinstance(error, BROKEN):
                    await self._drop_connection()
                if loop.time() + pause > deadline:
                    self._fail(group, error)
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, limits.reconnect_pause_max_s)
            except asyncpg.PostgresError as error:
                await self._one_by_one(group, deadline, error)
                return
            else:
                for item, answer in zip(group, answers, strict=True):
                    _settle(item.future, answer)
                return

    async def _attempt(self, group: list[_Item[Request, Answer]]) -> Sequence[Answer | DenizenError]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        for item in group:
            item.sent = True
        return await self._work.perform(self._connection, [item.request for item in group])

    async def _one_by_one(
        self, group: list[_Item[Request, Answer]], deadline: float, error: asyncpg.PostgresError
    ) -> None:
        """The server refused the whole group and undid it: find the one that it refuses."""
        if len(group) > 1:
            for item in group:
                await self._serve([item], deadline)
            return
        refusal = Unavailable(f"the shard refused this request: {error.sqlstate} {type(error).__name__}")
        refusal.__cause__ = error
        _settle(group[0].future, refusal)

    def _fail(self, group: list[_Item[Request, Answer]], cause: BaseException) -> None:
        for item in group:
            if item.sent and not isinstance(cause, PASSING):
                _settle(item.future, self._work.doubt(cause))
            else:
                _settle(item.future, Unavailable("the shard does not answer; nothing was changed"))

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _settle(future: "asyncio.Future[Answer]", answer: Answer | DenizenError) -> None:
    if future.done():
        return
    if isinstance(answer, DenizenError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=2)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
