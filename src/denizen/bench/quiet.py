"""Waiting until the machine has nothing else to do, so that one measurement does not pay for the one before."""

import time
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/stat")
BUSY_SHARE_MAX: Final = 0.1


def wait_until_quiet(seconds: float = 15.0) -> bool:
    """Wait until the processors are nearly idle, at most so long; whether they are. True where that cannot be told."""
    if not _STAT.exists():
        return True
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        busy, total = _times()
        time.sleep(0.4)
        later_busy, later_total = _times()
        if later_busy - busy <= BUSY_SHARE_MAX * (later_total - total):
            return True
    return False


def _times() -> tuple[int, int]:
    """Busy and all time of the processors since the start, in ticks."""
    values = [int(value) for value in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)
