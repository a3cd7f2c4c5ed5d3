"""A cluster of processes on this machine: for trying, for tests and for benchmarks.

    <directory>/cluster.toml      endpoints and the secret's file: what clients need
    <directory>/secret            0600
    <directory>/<id>/node.toml    a node's configuration; its log and snapshots are in <id>/data, its output in <id>/log

Starting it again in the same directory starts the same cluster.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from denizen.raft.errors import BadSettings
from denizen.raft.kv.http.routes import client_token

_STOP_S = 10.0
_PORT_MAX = 65535
PeerAddress = Callable[[int, int, str], str]
"""Given who calls whom at which address, return the address to call instead (a proxy)."""


class ClusterFile(msgspec.Struct, frozen=True):
    """What clients need to know: `endpoints` are URLs by node id."""

    endpoints: dict[str, str]
    secret_file: str

    @property
    def token(self) -> str:
        try:
            return client_token(Path(self.secret_file).read_bytes().strip())
        except OSError as error:
            raise BadSettings(f"the cluster's secret cannot be read: {error}") from None


def read_cluster_file(directory: Path) -> ClusterFile:
    """Return the endpoints and the token's source of the cluster in a directory."""
    path = directory / "cluster.toml"
    try:
        return msgspec.toml.decode(path.read_bytes(), type=ClusterFile)
    except (FileNotFoundError, NotADirectoryError):
        raise BadSettings(f"there is no cluster in {directory}: start one with `denizen raft up`") from None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}") from None


class LocalCluster:
    """Makes and runs the nodes' processes. `stop` ends all of them; use as a context manager.

    Raises `BadSettings` when a cluster cannot be made in the directory or with these ports.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        *,
        first_port: int = 0,
        peer_address: PeerAddress | None = None,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._first_port = first_port
        self._peer_address = peer_address or (lambda _caller, _callee, address: address)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            if not (directory / "cluster.toml").exists():
                self._create(nodes)
        except OSError as error:
            raise cannot_hold_a_cluster(directory, error) from None
        self.file = read_cluster_file(directory)
        self.ids = sorted(int(id) for id in self.file.endpoints)

    @property
    def endpoints(self) -> list[str]:
        """The URLs of all nodes, in the order of their ids."""
        return [self.file.endpoints[str(id)] for id in self.ids]

    @property
    def token(self) -> str:
        return self.file.token

    def endpoint(self, id: int) -> str:
        return self.file.endpoints[str(id)]

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, *ids: int) -> None:
        """Start nodes (all of them if none is named) without waiting for a leader."""
        for id in ids or self.ids:
            home = self.directory / str(id)
            with self.log_path(id).open("ab") as log:
                self._processes[id] = subprocess.Popen(
                    [sys.executable, "-m", "denizen.raft.kv", str(home / "node.toml")],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # Ctrl-C is for us to handle; a session of its own would be scheduled apart
                )

    def pid(self, id: int) -> int:
        return self._processes[id].pid

    def signal(self, id: int, number: signal.Signals) -> None:
        """Send a signal to a node, such as SIGSTOP and SIGCONT."""
        self._processes[id].send_signal(number)

    def kill(self, id: int) -> None:
        """Kill a node with SIGKILL, and wait until it is gone."""
        process = self._processes.pop(id)
        process.kill()
        process.wait()

    def running(self) -> list[int]:
        return [id for id, process in sorted(self._processes.items()) if process.poll() is None]

    def exit_code(self, id: int) -> int | None:
        return self._processes[id].poll()

    def log(self, id: int) -> str:
        """Return what a node printed."""
        return self.log_path(id).read_text(errors="replace")

    def log_path(self, id: int) -> Path:
        return self.directory / str(id) / "log"

    def in_use(self) -> list[int]:
        """Return the nodes whose directories a running process holds."""
        return [id for id in self.ids if _is_locked(self.directory / str(id) / "data" / "lock")]

    def stop(self) -> None:
        """End all nodes: by SIGTERM, and by SIGKILL those that take too long."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- files -------------------------------------------------------------------------------------------------------

    def add_node(self, id: int, *, join: bool = True) -> str:
        """Write the configuration of one more node, which joins; return the address its peers reach it by."""
        peers = {
            other: msgspec.toml.decode((self.directory / str(other) / "node.toml").read_bytes())["peers"][str(other)]
            for other in self.ids
        }
        http, raft = self._ports(2)
        self._write_node(id, peers | {id: raft}, http, join=join)
        self._write_cluster({**self.file.endpoints, str(id): f"http://{http}"})
        return raft

    def _create(self, nodes: int) -> None:
        addresses = self._ports(2 * nodes)
        self.directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.directory / "secret", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as secret:
            secret.write(secrets.token_hex(32))
        ids = range(1, nodes + 1)
        http = dict(zip(ids, addresses[:nodes], strict=True))
        raft = dict(zip(ids, addresses[nodes:], strict=True))
        for id in ids:
            self._write_node(id, raft, http[id])
        self._write_cluster({str(id): f"http://{address}" for id, address in http.items()})

    def _write_node(self, id: int, peers: dict[int, str], http: str, *, join: bool = False) -> None:
        home = self.directory / str(id)
        home.mkdir(exist_ok=True)
        called = {
            other: address if other == id else self._peer_address(id, other, address)
            for other, address in peers.items()
        }
        config: dict[str, Any] = {
            "id": id,
            "data": str(home / "data"),
            "http": http,
            "secret_file": str(self.directory / "secret"),
            "join": join,
            **self._settings,
            "peers": {str(other): address for other, address in sorted(called.items())},
        }
        (home / "node.toml").write_bytes(to_toml(config))

    def _write_cluster(self, endpoints: dict[str, str]) -> None:
        facts = {"secret_file": str(self.directory / "secret"), "endpoints": endpoints}
        (self.directory / "cluster.toml").write_bytes(to_toml(facts))
        self.file = read_cluster_file(self.directory)
        self.ids = sorted(int(id) for id in self.file.endpoints)

    def _ports(self, count: int) -> list[str]:
        if self._first_port:
            return [f"127.0.0.1:{port}" for port in checked_ports(self._first_port, count)]
        return [f"127.0.0.1:{port}" for port in free_ports(count)]


def to_toml(facts: Mapping[str, Any]) -> bytes:
    """Return a flat mapping of words, numbers and at most a table or two as TOML."""
    tables = {name: table for name, table in facts.items() if isinstance(table, Mapping)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in facts.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return ("\n".join(lines) + "\n").encode()


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, below the range that the kernel gives to outgoing connections."""
    found: list[int] = []
    for port in _candidates():
        if not _is_free(port):
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


def checked_ports(first: int, count: int) -> range:
    """Return the ports from `first` on; raises `BadSettings` when they do not exist or cannot be had now."""
    ports = range(first, first + count)
    if first < 1 or ports[-1] > _PORT_MAX:
        raise BadSettings(f"{count} ports are needed, {first} to {ports[-1]}: ports are from 1 to {_PORT_MAX}")
    for port in ports:
        if not _is_free(port):
            raise BadSettings(f"port {port} is taken or not allowed: {count} ports in a row are needed, or 0 (any)")
    return ports


def cannot_hold_a_cluster(directory: Path, error: OSError) -> BadSettings:
    return BadSettings(f"{directory} cannot hold a cluster: {error}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the nodes do: what has ended holds no port
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _candidates() -> Iterable[int]:
    start = 10_000 + secrets.randbelow(20_000)
    return range(start, min(start + 2_000, 32_000))
