"""A child process that ends when its parent ends, whatever way that is."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals) -> None:
    """Called by a child at its start: get this signal when the parent's thread that started us ends (Linux)."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        os.kill(os.getpid(), number)
