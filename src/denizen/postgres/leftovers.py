"""What a killed start left behind in a PostgreSQL data directory: a running server, or the file of a dead one.

`postmaster.pid` names a process. If that process really is the server of this data directory it is stopped (nobody is
left to supervise it). If not, the file is removed: process ids are used again, after a reboot or in a fresh container
even at once, and PostgreSQL would refuse to start because of a stranger.
"""

import os
import signal
import time
from pathlib import Path

from denizen import limits
from denizen.errors import BadDeployment
from denizen.processes.children import command_of


def clear_leftovers(data: Path) -> int | None:
    """Make the data directory free for a new server; return the pid of an old server that had to be stopped.

    Raises `BadDeployment` if the old server cannot be stopped.
    """
    pid = running_postmaster(data)
    if pid is not None:
        _stop(pid, data)
    (data / "postmaster.pid").unlink(missing_ok=True)
    return pid


def running_postmaster(data: Path) -> int | None:
    """Return the pid of the server that runs on this data directory, if one does."""
    try:
        pid = abs(int((data / "postmaster.pid").read_text().split("\n", maxsplit=1)[0]))
    except (OSError, ValueError):
        return None
    return pid if _serves(pid, data) else None


def _serves(pid: int, data: Path) -> bool:
    """Say whether process `pid` is a PostgreSQL server of this directory: a server's working directory is its data."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True).samefile(data) and not _is_zombie(pid)
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    except OSError:
        return False
    command = command_of(pid)
    return "postgres" in command and str(data) in command


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _stop(pid: int, data: Path) -> None:
    for number, seconds in ((signal.SIGINT, limits.server_stop_s), (signal.SIGQUIT, limits.server_immediate_stop_s)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise BadDeployment(f"a PostgreSQL server (pid {pid}) of another user runs on {data}; stop it") from None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _serves(pid, data):
                return
            time.sleep(0.02)
    raise BadDeployment(f"the PostgreSQL server on {data} (pid {pid}) does not stop; stop it, then start again")
