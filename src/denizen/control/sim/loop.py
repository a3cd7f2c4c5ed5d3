"""An asyncio event loop in the simulation's virtual time, for one life of one node.

Callbacks are put into the simulation's queue, so that the executor, an ordinary asyncio program, runs in the same order
for the same seed. While its node stands still, so does the loop. `kill` ends everything at once, as a crash does: what
tasks do while they are torn down reaches nobody.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from denizen.raft.sim.node import SimNode
    from denizen.raft.sim.simulation import Simulation

TEARDOWN_STEPS_MAX = 10_000


class VirtualLoop:
    """As much of an event loop as tasks, futures, timeouts and locks need."""

    def __init__(self, sim: "Simulation", node: "SimNode") -> None:
        self._sim = sim
        self._node = node
        self.dead = False
        self.errors: list[str] = []
        self._ready: dict[asyncio.Handle, None] = {}  # scheduled for now, not run yet
        self._last: deque[asyncio.Handle] = deque()
        self._self = cast(asyncio.AbstractEventLoop, self)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._sim.now / 1e6

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Until it is killed."""
        return not self.dead

    def is_closed(self) -> bool:
        """When it was killed."""
        return self.dead

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=self._self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        """A task of this loop."""
        return asyncio.Task(coro, loop=self._self, name=name, context=context)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """At this moment of virtual time, after what is there already."""
        handle = asyncio.Handle(callback, args, self._self, context)
        self._schedule(self._sim.now, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """After `delay` seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """At `when`, in seconds of virtual time."""
        handle = asyncio.TimerHandle(when, callback, args, self._self, context)
        self._schedule(max(self._sim.now, round(when * 1e6)), handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Something that nobody awaited failed: the run has to tell."""
        if not self.dead:
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Part of the contract with `TimerHandle`; a cancelled handle is passed over when its time comes."""

    def _schedule(self, at: int, handle: asyncio.Handle) -> None:
        if self.dead:
            self._last.append(handle)
            return
        if not isinstance(handle, asyncio.TimerHandle):
            self._ready[handle] = None
        self._sim.at(at, self._run, handle)

    def _run(self, handle: asyncio.Handle) -> None:
        if self.dead or handle.cancelled():
            return
        if self._sim.now < self._node.paused_until:
            self._sim.at(self._node.paused_until, self._run, handle)
            return
        self._ready.pop(handle, None)
        self._call(handle)

    def _call(self, handle: asyncio.Handle) -> None:
        asyncio._set_running_loop(self._self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    def kill(self, main: "asyncio.Task[Any]") -> None:
        """End `main` and all that it started, here and now."""
        self.dead = True
        self._last.extend(self._ready)
        main.cancel()
        for _ in range(TEARDOWN_STEPS_MAX):
            if not self._last:
                break
            handle = self._last.popleft()
            if not handle.cancelled():
                self._call(handle)
        assert main.done(), "a killed executor has to end"  # noqa: S101 - a defect of the simulation itself
