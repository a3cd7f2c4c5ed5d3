"""Child processes that never outlive us, even if we are killed.

On Linux the kernel signals the child when its parent's thread dies (`PR_SET_PDEATHSIG`), so `spawn` must be called
from a thread that lives as long as the child should: the main one. Elsewhere a killed parent leaves its children, and
the next start cleans up (see `leftovers`). Children get a session of their own: a Ctrl-C in the terminal reaches only
us, and we stop the children in order.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from denizen import limits
from denizen.processes.accounts import Account, process_options

PR_SET_PDEATHSIG = 1


def spawn(
    command: Sequence[str],
    *,
    log: IO[bytes] | int,
    account: Account | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    at_our_death: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `command` with its output in `log`; it receives `at_our_death` when this thread ends for any reason."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        start_new_session=True,
        preexec_fn=_die_with_us(at_our_death),  # noqa: PLW1509  one system call, prepared before the fork
        **process_options(account),
    )


class ChildProcess:
    """A program that this process runs as its child, perhaps again and again; what it says goes to the file `log`."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_from = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: the signal that killed it); None while it runs or before its start."""
        return self._process.poll() if self._process else None

    def begin_stop(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            self._process.wait()

    def said(self, lines: int = 15) -> str:
        """The end of what it logged since its start."""
        with self._log.open("rb") as file:
            file.seek(self._log_from)
            text = file.read()[-65_536:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(it logged nothing)"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # nothing is sent to a process that has ended

    def _run(
        self,
        command: Sequence[str],
        *,
        account: Account | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        at_our_death: signal.Signals = signal.SIGTERM,
    ) -> int:
        """Start it, as `spawn` does; its process id."""
        with open_log(self._log) as log:
            self._log_from = log.tell()
            self._process = spawn(command, log=log, account=account, cwd=cwd, env=env, at_our_death=at_our_death)
        return self._process.pid


def open_log(path: Path) -> IO[bytes]:
    """Open a child's log for appending; one that grew large is put aside, the one before it is dropped."""
    if path.exists() and path.stat().st_size > limits.server_log_bytes_max:
        path.replace(path.with_suffix(".log.1"))
    file = path.open("ab")
    path.chmod(0o600)
    return file


def _die_with_us(number: signal.Signals) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        # Runs in the child after it changed its user, which would have cleared the request.
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def command_of(pid: int) -> str:
    """Return the command line of a running process, its arguments with spaces between; "" if there is none."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    run = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return run.stdout


def lives(pid: int | None) -> bool:
    """Say whether there is a process with this id, whoever's it is."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
