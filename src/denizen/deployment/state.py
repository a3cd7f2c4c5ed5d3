"""What runs now, as the supervisor last wrote it: `run/state.json`.

Other processes read ports and pids here. It says what was, not what is: whether the supervisor lives is told by the
lock, whether a server answers by asking it. Losing the file costs nothing but the old port numbers.
"""

import os
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct


class ServerState(Struct, frozen=True):
    """One PostgreSQL server of ours."""

    port: int
    socket_directory: str | None = None
    pid: int | None = None
    restarts: int = 0


class GatewayState(Struct, frozen=True):
    """The gateway's process."""

    host: str
    port: int
    pid: int | None = None
    restarts: int = 0

    @property
    def url(self) -> str:
        """The address of the HTTP API; a gateway that listens everywhere is reached on loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class ProcessState(Struct, frozen=True):
    """A process of the event plane; `port` where others reach it."""

    pid: int | None = None
    restarts: int = 0
    port: int | None = None


class ControlNodeState(Struct, frozen=True):
    """A node of the control plane: where the other nodes reach it, and where clients do."""

    raft_port: int
    port: int
    pid: int | None = None
    restarts: int = 0


class RunState(Struct, frozen=True):
    """Everything that the supervisor runs; empty before the first start."""

    pid: int | None = None
    version: str | None = None
    started_at: datetime | None = None
    ready: bool = False
    shards: dict[str, ServerState] = {}
    gateway: GatewayState | None = None
    bus: ProcessState | None = None
    processes: dict[str, ProcessState] = {}
    control: dict[str, ControlNodeState] = {}  # by the node's number


def read_state(path: Path) -> RunState:
    """Return the state in the file; an empty one if it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunState)
    except (FileNotFoundError, msgspec.DecodeError):
        return RunState()


def write_state(path: Path, state: RunState) -> None:
    """Replace the file; readers see the old state or the new one, whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.replace(path)
