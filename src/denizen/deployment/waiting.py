"""Waiting for a condition outside this process: child processes and their files have nobody to wake us."""

import asyncio
from collections.abc import Callable

POLL_SECONDS = 0.02


async def until(condition: Callable[[], bool], seconds: float | None = None) -> bool:
    """Wait until `condition` holds, at most `seconds`; return whether it does."""
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    while not condition():
        if deadline is not None and loop.time() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
