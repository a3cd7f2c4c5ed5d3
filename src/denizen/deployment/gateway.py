"""The gateway as a child process of the supervisor: `denizen gateway` on a port that was found for it."""

import asyncio
import os
import signal
import time
from contextlib import suppress

from denizen import limits
from denizen.deployment.command_process import CommandProcess
from denizen.deployment.config import GatewaySection, parse_listen
from denizen.deployment.layout import Deployment
from denizen.deployment.state import GatewayState
from denizen.errors import BadConfiguration, BadDeployment
from denizen.processes.children import command_of
from denizen.processes.ports import find_port, is_free

PROBE_PAUSE_SECONDS = 0.05


class GatewayProcess(CommandProcess):
    """The process that serves the HTTP API."""

    def __init__(self, deployment: Deployment, config: GatewaySection) -> None:
        super().__init__("gateway", deployment)
        self.host, self.port = parse_listen(config.listen)
        self._found = self.port == 0

    def running_state(self) -> GatewayState:
        """Return what other processes need to know."""
        return GatewayState(host=self.host, port=self.port, pid=self.pid, restarts=self.restarts)

    def choose_port(self) -> None:
        """Find the port: the configured one, else the last one, else any free one.

        Raises `BadConfiguration` if the configured port is somebody else's.
        """
        if self._found:
            last = self._deployment.state().gateway
            self.port = find_port(last.port if last else None, host=self.host)
        elif not is_free(self.port, self.host):
            raise BadConfiguration(
                f"gateway.listen: {self.host}:{self.port} is in use (or not an address of this machine); "
                "choose another, or port 0 to have one found",
                key="gateway.listen",
            )

    async def launch(self) -> None:
        """Start the process and wait until it answers HTTP. Raises `BadDeployment` with its log if it does not."""
        if self._found and not is_free(self.port, self.host):
            self.choose_port()
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self._begin("gateway", "--listen", where)
        deadline = asyncio.get_running_loop().time() + limits.gateway_start_s
        while not await self.answers():
            if self.exit_code is not None or asyncio.get_running_loop().time() > deadline:
                raise BadDeployment(f"the gateway does not start:\n{self.said()}")
            await asyncio.sleep(PROBE_PAUSE_SECONDS)

    async def answers(self) -> bool:
        """Say whether the gateway answers an HTTP request."""
        return self.pid is not None and await answers_http(self.running_state())

    async def stop(self) -> None:
        """Ask the gateway to finish the requests it has and end; kill it when the time for that is over."""
        await self._end(limits.drain_s + limits.gateway_end_s)


def stop_leftover_gateway(deployment: Deployment) -> int | None:
    """Stop a gateway whose supervisor was killed without taking it along; return its pid if there was one."""
    last = deployment.state().gateway
    pid = last.pid if last else None
    ours = f"denizen gateway --data {deployment.directory} "
    if pid is None or ours not in command_of(pid):
        return None
    for number, seconds in ((signal.SIGTERM, limits.drain_s), (signal.SIGKILL, limits.gateway_end_s)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while ours in command_of(pid) and time.monotonic() < deadline:
            time.sleep(PROBE_PAUSE_SECONDS)
        if ours not in command_of(pid):
            break
    return pid


async def answers_http(gateway: GatewayState, path: str = "/health/live") -> bool:
    """Say whether an HTTP server answers at the gateway's address, whatever it says."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)  # noqa: S104
    try:
        async with asyncio.timeout(limits.probe_s):
            reader, writer = await asyncio.open_connection(host, gateway.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            try:
                return (await reader.readline()).startswith(b"HTTP/1.")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
