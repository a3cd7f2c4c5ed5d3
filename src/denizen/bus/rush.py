"""A rush: writes queue, and the processors are full. Then who can wait lets the writers go first, for a while.

    hints ─▶ Rush: does one go on? ─▶ GivingWay, one for each relay and for the projector: how long to rest

A gateway's hints say how many writes its groups have: what gathers while the group before it is at the server goes
together, so large groups are a queue that stands. If less than one processor of this machine is free at the same time,
whatever relay and projector use is taken from the writers. So they rest much longer than they work. What they put off
they do after the rush, but readers shall not wait for long: they give way for `patience_s`, and then work as always,
until they have caught up and the rush is over.
"""

import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from denizen import limits
from denizen.bus.metrics import rested_seconds

_STAT: Final = Path("/proc/stat")  # Linux only; elsewhere nobody gives way


class Processors:
    """How many processors of this machine are free, on the average of the last moment."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._idle, self._at = inf, -inf
        self._free = inf

    def free(self, now: float) -> float:
        """Processors that had nothing to do; infinitely many if that is not known."""
        if now - self._at >= limits.rush_look_s:
            idle = self._idle_s()
            self._free = max(0.0, idle - self._idle) / (now - self._at) if self._idle < inf else inf
            self._idle, self._at = idle, now
        return self._free

    def _idle_s(self) -> float:
        """Seconds that all processors together had nothing to do, since the start of the machine."""
        try:
            with self._stat.open("rb") as file:
                _, _user, _nice, _system, idle, waiting = file.readline().split()[:6]
        except (OSError, ValueError):
            return inf
        return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


class Rush:
    """Whether one goes on, as far as hints and the processors of this machine tell."""

    def __init__(self, processors: Processors | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._processors = processors or Processors()
        self.clock = clock
        self._began = self._heard = -inf

    def hear(self, group: float) -> None:
        """A gateway's last groups had so many writes, on the average.

        A rush begins when each of these is large: where there is just enough to do, some are and some are not.
        """
        now = self.clock()
        if group < limits.rush_group_writes or self._processors.free(now) >= limits.rush_processors_free:
            if self._heard - self._began < limits.rush_begins_s:
                self._heard = -inf
            return
        if now - self._heard > limits.rush_over_s:
            self._began = now
        self._heard = now

    @property
    def on(self) -> bool:
        """Whether there is one, that is more than a moment's."""
        return self.clock() - self._heard <= limits.rush_over_s and self._heard - self._began >= limits.rush_begins_s


class GivingWay:
    """How much to do at a time, and how long to rest after it, for one who gives way for `patience_s` (0: never)."""

    def __init__(self, rush: Rush, patience_s: float) -> None:
        self._rush = rush
        self._patience_s = patience_s
        self._ends = inf

    @property
    def on(self) -> bool:
        """Whether to give way now."""
        return self._patience_s > 0 and self._rush.on and self._rush.clock() < self._ends

    def events_max(self, usual: int) -> int:
        """How many events to do at a time."""
        return min(usual, limits.rush_batch_events_max) if self.on else usual

    def rest_after(self, worked_s: float) -> float:
        """Seconds to rest, 0 if nobody is given way to."""
        if not self.on:
            return 0.0
        self._ends = min(self._ends, self._rush.clock() + self._patience_s)
        rest = min(worked_s * limits.rush_rest, limits.rush_rest_max_s)
        rested_seconds.inc(rest)
        return rest

    def caught_up(self) -> None:
        """Nothing is left to do: there is patience anew, unless the rush goes on."""
        if not self._rush.on:
            self._ends = inf
