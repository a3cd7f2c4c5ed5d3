"""One supervisor per data directory: an exclusive lock on `run/lock`.

The kernel releases the lock when its holder ends, however it ends, so a killed supervisor never blocks the next one.
The file holds the pid of its holder, for messages and for `denizen down`; it means something only while the lock is
held.
"""

import fcntl
import os
import time
from pathlib import Path

from denizen.errors import BadDeployment

GLANCE_SECONDS = 0.5  # `holder` looks by taking the lock for an instant; that must not refuse a start


class DirectoryLock:
    """The lock of a data directory; held from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `BadDeployment` naming the pid of the process that holds it."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + GLANCE_SECONDS
        while not _try(handle, fcntl.LOCK_EX):
            pid = holder(self.path)
            if pid is not None or time.monotonic() > deadline:
                os.close(handle)
                raise BadDeployment(
                    f"the deployment in {self.path.parent.parent} runs already (pid {pid or 'unknown'}): "
                    "see `denizen status`, or stop it with `denizen down`"
                )
            time.sleep(0.01)
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds the lock, None if nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _try(handle, fcntl.LOCK_SH):
            return None
        text = os.read(handle, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
