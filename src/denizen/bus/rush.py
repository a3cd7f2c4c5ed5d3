"""A rush: writes queue, and the processors are full. Then who can wait lets the writers go first.

    hints ─▶ Rush: does one go on? ─▶ GivingWay, one for each relay and for the projector: how much to do, when to rest

A gateway's hints say how many writes its groups have: what gathers while the group before it is at the server goes
together, so large groups are a queue that stands. If less than one processor of this machine is free at the same time,
whatever relay and projector use is taken from the writers. So they work seldom, and rest between two portions: to do
all that has gathered costs a quarter less than small portions do. Most rushes are short: where it is sure that one goes
on they do little at a time and put off the rest, until it has lasted for `patience_s`. Readers shall not wait longer.
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
        self._unbroken = inf  # since when every hint was a sign of one

    def hear(self, group: float) -> None:
        """A gateway's last groups had so many writes, on the average.

        A rush begins when each of these is large: where there is just enough to do, some are and some are not.
        """
        now = self.clock()
        if group < limits.rush_group_writes or self._processors.free(now) >= limits.rush_processors_free:
            self._unbroken = inf
            if self._heard - self._began < limits.rush_begins_s:
                self._heard = -inf
            return
        if now - self._heard > limits.rush_over_s:
            self._began = self._unbroken = now
        self._unbroken = min(self._unbroken, now)
        self._heard = now

    @property
    def on(self) -> bool:
        """Whether there is one, that is more than a moment's."""
        return self.clock() - self._heard <= limits.rush_over_s and self._heard - self._began >= limits.rush_begins_s

    @property
    def settled(self) -> bool:
        """Whether it goes on without a break: no pause that is made up for, on a machine with little to spare."""
        return self.on and self._heard - self._unbroken >= limits.rush_settles_s


class GivingWay:
    """How one who gives way works: how much at a time, and how long to rest after it. `patience_s` 0: never."""

    def __init__(self, rush: Rush, patience_s: float) -> None:
        self._rush = rush
        self._patience_s = patience_s
        self._ends = inf

    @property
    def _on(self) -> bool:
        """Whether to give way now."""
        return self._patience_s > 0 and self._rush.on

    @property
    def patient(self) -> bool:
        """Whether to put off what can be put off, as long as that is not for too long."""
        return self._on and self._rush.settled and self._rush.clock() < self._ends

    def events_max(self, usual: int) -> int:
        """How many events to do at a time."""
        return min(usual, limits.rush_batch_events_max) if self.patient else usual

    def rest(self, *, far_behind: bool) -> float:
        """Seconds to rest after a portion; `far_behind`: there was more to do than is done at a time."""
        if not self._on:
            return 0.0
        self._ends = min(self._ends, self._rush.clock() + self._patience_s)
        if far_behind and not self.patient:
            return 0.0
        rested_seconds.inc(limits.rush_rest_s)
        return limits.rush_rest_s

    def caught_up(self) -> None:
        """Nothing is left to do: there is patience anew, unless the rush goes on."""
        if not self._rush.on:
            self._ends = inf
