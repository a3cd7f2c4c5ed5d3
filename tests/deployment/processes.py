"""Running the command, and looking at a machine's processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def denizen(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    command = [sys.executable, "-P", "-m", "denizen", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def processes_in(directory: Path) -> list[int]:
    """Return the pids of all processes that work in this directory or were started for it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(directory) in command or where.startswith(f"{directory}/"):
            found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the condition holds; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
