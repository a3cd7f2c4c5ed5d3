"""The process: it serves, finishes what it has on a signal, logs no personal data, says why it cannot start."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from http_api import some_email

from denizen.processes.ports import find_port
from denizen.testing.deployment import RunningDeployment, throwaway_deployment

DEADLINE_S = 20.0


class GatewayProcess:
    """A gateway of a running deployment, beside that of its supervisor."""

    def __init__(self, deployment: RunningDeployment, log: Path, port: int | None = None) -> None:
        self.key = deployment.admin_key
        self.port = port or find_port(None)
        self.log = log
        self.connections: list[socket.socket] = []
        data, listen = str(deployment.deployment.directory), f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "denizen", "gateway", "--data", data, "--listen", listen]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, stdout=file)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        self.connections.append(connection)
        return connection

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        for connection in self.connections:
            connection.close()

    def wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), self.connect() as connection:
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                if connection.recv(12) == b"HTTP/1.1 200":
                    return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def post(self, path: str, body: bytes, *, hold_back: int = 0) -> tuple[socket.socket, bytes]:
        """Send a request but for the last bytes of its body; returns the connection and those bytes."""
        connection = self.connect()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[: len(body) - hold_back])
        return connection, body[len(body) - hold_back :]

    def lines(self) -> list[dict[str, object]]:
        return [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def deployment() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=1) as running:
        yield running


@pytest.fixture
def start(deployment: RunningDeployment, tmp_path: Path) -> Iterator[Callable[[], GatewayProcess]]:
    started = []

    def make() -> GatewayProcess:
        process = GatewayProcess(deployment, tmp_path / f"gateway-{len(started)}.log")
        started.append(process)
        process.wait_until_it_serves()
        return process

    yield make
    for process in started:
        process.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_requests_that_it_has(start: Callable[[], GatewayProcess], number: int) -> None:
    gateway = start()
    email = some_email()
    connection, rest = gateway.post("/v1/users", f'{{"email":"{email}"}}'.encode(), hold_back=5)
    idle = gateway.connect()
    time.sleep(0.1)  # so that the request is under way
    gateway.process.send_signal(number)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            gateway.connect()
        except ConnectionError:
            break
    connection.sendall(rest)
    reply = connection.recv(65536)
    assert reply.startswith(b"HTTP/1.1 201")
    assert email.encode() in reply
    assert gateway.process.wait(DEADLINE_S) == 0
    assert idle.recv(1) == b""
    assert gateway.lines()[-1]["event"] == "gateway_stopped"


def test_a_second_signal_ends_it_at_once(start: Callable[[], GatewayProcess]) -> None:
    gateway = start()
    gateway.post("/v1/users", b'{"email":"x@example.org"}', hold_back=5)
    time.sleep(0.1)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(3.0) != 0


def test_the_log_has_every_request_as_json_without_personal_data(start: Callable[[], GatewayProcess]) -> None:
    gateway = start()
    email, password = some_email(), "correct horse battery"
    for path, body in (
        ("/v1/users", f'{{"email":"{email}","password":"{password}"}}'),
        (f"/v1/login-names/email/{email}/password/verify", f'{{"password":"{password}"}}'),
        (f"/v1/users?cursor={email}", f'{{"email":"{email}","nonsense":1}}'),
        (f"/v1/{email}", "{}"),
    ):
        connection, _ = gateway.post(path, body.encode())
        assert connection.recv(65536)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(DEADLINE_S) == 0
    text = gateway.log.read_text()
    requests = [line for line in gateway.lines() if line["event"] == "request" and line["method"] != "GET"]
    assert email.split("@")[0] not in text
    assert password not in text
    assert gateway.key not in text
    assert [line["status"] for line in requests if line["route"] != "/health/ready"] == [201, 200, 400, 404]
    assert requests[0]["route"] == "/v1/users"
    assert requests[0]["key"] == gateway.key.split("_")[1]
    assert {"timestamp", "level", "ms", "request_id"} <= set(requests[0])


def test_a_port_in_use_is_one_clear_line(deployment: RunningDeployment, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = GatewayProcess(deployment, tmp_path / "log", port)
        assert gateway.process.wait(DEADLINE_S) == 1
    text = gateway.log.read_text().strip()
    assert f"127.0.0.1:{port}" in text.splitlines()[-1]
    assert "Traceback" not in text
