"""Lanes: requests that arrive together go to the server together.

A lane owns one connection and a bounded queue. While one group is at the server, the next one gathers; so the group
grows with the load, and one round trip and one commit serve many. A shard's buckets are split over its lanes, so that
two groups never wait for each other's locks.

A lane is told how to perform a group (`Work`). If the connection breaks, it reconnects and asks again until the
deadline: the work must be safe to repeat. What cannot be answered by then fails as `Unavailable` if it never left
this process or was undone, and as the work's own doubt (outcome unknown, for a write) if it may have been done. What
waited in the queue until its own deadline is not sent any more.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeVar

import asyncpg
import structlog

from denizen import limits
from denizen.errors import DenizenError, Overloaded, Unavailable
from denizen.invariants import invariant

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answered_co = TypeVar("Answered_co", covariant=True)
_log = structlog.get_logger()
Connect = Callable[[], Awaitable[asyncpg.Connection]]

# The server broke off, or is not there: what it had been asked may or may not have happened.
BROKEN = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # so asyncpg says that the server took leave while the connection was idle
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
    __slots__ = ("deadline", "future", "in_doubt", "request")

    def __init__(self, request: Request, future: "asyncio.Future[Answer]", deadline: float) -> None:
        self.request = request
        self.future = future
        self.deadline = deadline  # to be sent by then, or never
        self.in_doubt = False  # it was sent, and the server broke off before it answered


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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._queue.append(_Item(request, future, loop.time() + self._work.deadline_s))
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
            now = loop.time()
            group = self._take(now)
            if group:
                await self._serve(group, now + self._work.deadline_s)

    def _take(self, now: float) -> list[_Item[Request, Answer]]:
        """The next group: in order, without two that share a key, without those that nobody waits for any more."""
        queue, work = self._queue, self._work
        group: list[_Item[Request, Answer]] = []
        later: list[_Item[Request, Answer]] = []
        seen: set[object] = set()
        while queue and len(group) < work.group_max and len(later) < limits.lane_postponed_max:
            item = queue.popleft()
            if item.future.done():
                continue
            if item.deadline < now:
                _settle(item.future, Unavailable("this request waited too long; nothing was changed"))
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
                async with asyncio.timeout_at(deadline):  # a server may also be frozen, or cut off
                    answers = await self._attempt(group)
            except Exception as error:  # noqa: BLE001 - a defect may fail what it touches, never the lane
                fate = _fate_of(error)
                if fate in (_Fate.BROKEN, _Fate.DEFECT):
                    self._drop_connection()
                if fate in (_Fate.REFUSED, _Fate.DEFECT) and len(group) > 1:
                    await self._one_by_one(group, deadline)
                    return
                if fate in (_Fate.REFUSED, _Fate.DEFECT) or loop.time() + pause > deadline:
                    self._fail(group, fate, error)
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, limits.reconnect_pause_max_s)
            else:
                for item, answer in zip(group, answers, strict=True):
                    _settle(item.future, answer)
                return

    async def _attempt(self, group: list[_Item[Request, Answer]]) -> Sequence[Answer | DenizenError]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        try:
            answers = await self._work.perform(self._connection, [item.request for item in group])
            invariant(len(answers) == len(group), "every request has an answer", sent=len(group), got=len(answers))
        except BaseException as error:
            if _fate_of(error) in (_Fate.BROKEN, _Fate.DEFECT):
                for item in group:
                    item.in_doubt = True
            raise
        return answers

    async def _one_by_one(self, group: list[_Item[Request, Answer]], deadline: float) -> None:
        """The whole group failed: each request again, alone, to find the one at fault."""
        for item in group:
            await self._serve([item], deadline)

    def _fail(self, group: list[_Item[Request, Answer]], fate: "_Fate", cause: Exception) -> None:
        if fate is _Fate.DEFECT:
            _log.error("lane_defect", exc_info=cause)
        for item in group:
            if item.in_doubt:
                error = self._work.doubt(cause)
            elif fate is _Fate.REFUSED:
                code = getattr(cause, "sqlstate", None)
                error = Unavailable(f"the shard refused this request: {code} {type(cause).__name__}")
            else:
                error = Unavailable("the shard does not answer; nothing was changed")
            error.__cause__ = cause
            _settle(item.future, error)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class _Fate(Enum):
    """What an error says about the group."""

    BROKEN = "it may or may not have been done: connect again and ask again"
    PASSING = "it was undone for a reason that passes: ask again"
    REFUSED = "it was undone, or never sent, and would be again"
    DEFECT = "it may or may not have been done, and asking again does not help"


def _fate_of(error: BaseException) -> _Fate:
    if isinstance(error, ValueError) and isinstance(error, asyncpg.InterfaceError):
        return _Fate.REFUSED  # the driver cannot encode an argument
    if isinstance(error, (*BROKEN, asyncio.CancelledError)):
        return _Fate.BROKEN
    if isinstance(error, PASSING):
        return _Fate.PASSING
    return _Fate.REFUSED if isinstance(error, asyncpg.PostgresError) else _Fate.DEFECT


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
