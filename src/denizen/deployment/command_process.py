"""A command of ours as a child of the supervisor: `denizen <command> --data <directory> ...`."""

import signal
import sys

from denizen.deployment.layout import Deployment
from denizen.deployment.waiting import until
from denizen.processes.children import ChildProcess


class CommandProcess(ChildProcess):
    """Logs to `<name>.log`; whoever keeps it running counts its `restarts`."""

    def __init__(self, name: str, deployment: Deployment) -> None:
        super().__init__(deployment.logs / f"{name}.log")
        self.name = name
        self.restarts = 0
        self._deployment = deployment

    def _begin(self, command: str, *options: str, at_our_death: signal.Signals = signal.SIGTERM) -> int:
        """Start the process; its id."""
        ours = [sys.executable, "-P", "-m", "denizen", command, "--data", str(self._deployment.directory)]
        return self._run([*ours, *options], at_our_death=at_our_death)

    async def _end(self, seconds: float) -> None:
        """Ask the process to end; kill it when the time for that is over."""
        self.begin_stop()
        if not await until(lambda: self.pid is None, seconds):
            self.kill()
        self.wait()
