"""Keeping a child process running: if it ends by itself, it is started again, at once at first, then less often."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from denizen import limits
from denizen.deployment.waiting import until
from denizen.errors import DenizenError

FIRST_DELAY_SECONDS = 0.1
HEALTHY_SECONDS = 60.0


class Child(Protocol):
    """A process of ours that can be started again."""

    name: str
    restarts: int

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        ...

    async def launch(self) -> None:
        """Start the process and wait until it serves. Raises `DenizenError` if it does not."""
        ...


def next_delay(last_seconds: float, lived_seconds: float) -> float:
    """Return how long to wait before the next start of a child that lived so long, after a wait of `last_seconds`."""
    if lived_seconds >= HEALTHY_SECONDS or last_seconds == 0:
        return FIRST_DELAY_SECONDS
    return min(last_seconds * 2, limits.restart_delay_s_max)


async def keep_running(child: Child, tell: Callable[[str], None]) -> None:
    """Watch `child` for ever: whenever it ends, `tell` people and start it again. Cancel to let it end."""
    loop = asyncio.get_running_loop()
    delay = 0.0
    while True:
        started = loop.time()
        await until(lambda: child.exit_code is not None, poll_s=limits.child_poll_s)
        code = child.exit_code or 0
        delay = next_delay(delay, loop.time() - started)
        tell(f"{child.name} ended unexpectedly ({describe_exit(code)}); starting it again")
        await asyncio.sleep(delay)
        child.restarts += 1
        try:
            await child.launch()
        except (DenizenError, OSError) as error:
            tell(f"{child.name} did not start: {error}")
        else:
            tell(f"{child.name} runs again")


def describe_exit(code: int) -> str:
    """Return an exit code in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
