"""A whole throwaway deployment for tests: `denizen up` as a real process, with real servers.

    with throwaway_deployment(shards=2) as running:
        ... running.url, running.admin_key, running.deployment.shards

The process ends with ours at the latest (see `processes.children`), and its directory is removed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from denizen.deployment.layout import Deployment
from denizen.processes.accounts import Account, give
from denizen.processes.children import spawn
from denizen.testing.postgres import reachable_directory

START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
SMALL = '[postgres]\nmemory = "512MB"\n[control]\nvoters = 1\n'


class UpProcess:
    """One `denizen up` on a data directory, and what it told."""

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str] = (),
        *,
        account: Account | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """Start it, as another user with `account`. `directory` holds its data and its output."""
        self.directory = directory
        self.data = directory / "data"
        self._output = directory / f"up-{time.monotonic_ns()}.ndjson"
        command = [python, "-P", "-m", "denizen", "up", "--json", "--data", str(self.data), *arguments]
        with self._output.open("wb") as output:
            self.process: subprocess.Popen[bytes] = spawn(
                command, log=output, account=account, cwd=Path("/"), env={**os.environ, **(environment or {})}
            )
        self.ready: dict[str, Any] = {}

    def events(self) -> list[dict[str, Any]]:
        """Return what it told so far: objects with a `kind`."""
        lines = self._output.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"kind"')]

    def said(self) -> str:
        """Return everything it wrote, errors too."""
        return self._output.read_text(errors="replace")

    def notes(self) -> list[str]:
        """Return what people should have seen, such as restarts."""
        return [event["text"] for event in self.events() if event["kind"] == "note"]

    def wait_ready(self, seconds: float = START_SECONDS_MAX) -> "UpProcess":
        """Wait until everything runs. Raises `RuntimeError` with its output if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            self.ready = next((event for event in self.events() if event["kind"] == "ready"), {})
            if self.ready:
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"denizen up did not get ready (exit code {self.process.poll()}): {self.said()}")
            time.sleep(POLL_SECONDS)

    @property
    def url(self) -> str:
        """The address of the HTTP API."""
        return str(self.ready["url"])

    @property
    def deployment(self) -> Deployment:
        """The deployment, as any other process sees it."""
        return Deployment.load(self.data)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it in order; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=STOP_SECONDS_MAX)

    def kill(self) -> None:
        """End the supervisor as a crash would, without any chance to stop its servers."""
        self.process.kill()
        self.process.wait()


class RunningDeployment:
    """A deployment that can be stopped, killed and started again on the same data."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        self.directory = directory
        self._arguments = list(arguments)
        self.up = UpProcess(directory, arguments).wait_ready()
        self.admin_key = str(self.up.ready["admin_key"])

    @property
    def url(self) -> str:
        """The address of the HTTP API."""
        return self.up.url

    @property
    def data(self) -> Path:
        """The data directory, for `--data`."""
        return self.up.data

    @property
    def deployment(self) -> Deployment:
        """The deployment, as any other process sees it."""
        return self.up.deployment

    def start_again(self) -> None:
        """Start it again after it was stopped or killed."""
        self.up = UpProcess(self.directory, self._arguments).wait_ready()


@contextmanager
def throwaway_deployment(
    *, shards: int = 2, arguments: Sequence[str] = (), configuration: str = SMALL
) -> Iterator[RunningDeployment]:
    """Run a deployment for the length of a `with` block; call from the main thread.

    `configuration` is the text of its denizen.toml; `arguments` are further ones of `denizen up`.
    """
    with reachable_directory() as directory:
        write_configuration(directory, configuration)
        running = RunningDeployment(directory, ["--shards", str(shards), *arguments])
        try:
            yield running
        finally:
            running.up.stop()


def write_configuration(directory: Path, text: str = SMALL, account: Account | None = None) -> None:
    """Write `data/denizen.toml` before the first start."""
    data = directory / "data"
    data.mkdir(exist_ok=True)
    (data / "denizen.toml").write_text(text)
    give(data, account)
