"""Waiting for a condition outside this process: child processes and their files have nobody to wake us."""

import asyncio
from collections.abc import Callable

POLL_SECONDS = 0.02


async def until(condition: Callable[[], bool], seconds: float | None = None, *, poll_s: float = POLL_SECONDS) -> bool:
    """Wait until `condition` holds, at most `seconds`; return whether it does. It is looked at every `poll_s`."""
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    while not condition():
        if deadline is not None and loop.time() > deadline:
            return False
        await asyncio.sleep(poll_s)
    return True
