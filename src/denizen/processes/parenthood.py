"""The life of a worker: it ends when its parent ends, whatever way that is, and otherwise when the parent says so."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from denizen.processes.children import PR_SET_PDEATHSIG


def die_with_parent(number: signal.Signals) -> None:
    """Called by a child at its start: get this signal when the parent's thread that started us ends (Linux)."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        os.kill(os.getpid(), number)


def run_worker(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The whole process of a worker. How often its garbage is collected is its own matter; what it loaded never is."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
