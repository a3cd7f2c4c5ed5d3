"""Ending tasks that talk to NATS.

The NATS client swallows a cancellation that meets it while it flushes. So a task of ours is cancelled again until it
has ended.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 0.25


async def end_tasks(tasks: Iterable["asyncio.Task[Any] | None"]) -> None:
    """Cancel these tasks and wait for their ends; what they raise is dropped."""
    running = {task for task in tasks if task is not None and not task.done()}
    while running:
        for task in running:
            task.cancel()
        ended, running = await asyncio.wait(running, timeout=_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen, so that nobody complains that it never was
