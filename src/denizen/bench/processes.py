"""What processes cost, by what Linux says of them: memory and processor time, of one or with its descendants."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory_of_tree(pid: int) -> int:
    """Bytes of memory of a process and all its descendants; pages that several share count once (PSS)."""
    return sum(_memory(each) for each in (pid, *_descendants(pid)))


def processor_seconds(*pids: int | None) -> float:
    """Seconds of processor time of these processes so far, and of children of theirs that ended; of None nothing."""
    return sum(sum(_times(pid)) for pid in pids if pid is not None) / _TICKS


def processor_seconds_of_tree(pid: int | None) -> float:
    """The same of a process and all its descendants."""
    return 0.0 if pid is None else processor_seconds(pid, *_descendants(pid))


def processor_seconds_of_servers(marker: str) -> float:
    """Seconds of processor time of all PostgreSQL servers whose command line names `marker`, ended backends too."""
    total = 0.0
    for pid in _pids():
        try:
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"postgres" in command and b"-D" in command and marker.encode() in command:
            total += processor_seconds_of_tree(pid)
    return total


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _descendants(pid: int) -> list[int]:
    parents = {each: _parent(each) for each in _pids()}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _times(pid: int) -> list[int]:
    fields = _stat(pid)
    return [int(field) for field in fields[11:15]] if fields else [0, 0, 0, 0]


def _stat(pid: int) -> list[str]:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _memory(pid: int) -> int:
    try:
        for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
