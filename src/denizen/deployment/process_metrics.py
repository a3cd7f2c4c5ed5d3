"""The metrics of a deployment's background processes, which nobody asks: each writes its own down every few seconds.

The gateway gives them to who may read metrics (`GET /metrics?process=relay`), so that no other port is needed. The
files are in Prometheus' text format, as its node exporter takes them up too.
"""

import threading
import time
from pathlib import Path
from typing import Final

import structlog

from denizen import limits
from denizen.deployment.layout import Deployment

PROCESSES: Final = ("relay", "projector")

_log = structlog.get_logger()


class ProcessMetrics:
    """Where the processes of one deployment write, and the gateway reads."""

    def __init__(self, deployment: Deployment) -> None:
        self._directory = deployment.state_path.parent

    def path(self, process: str) -> Path:
        """The file of one of `PROCESSES`."""
        return self._directory / f"{process}.prom"

    def keep_writing(self, process: str) -> None:
        """Write this process's metrics now and every few seconds, in a thread that ends with the process."""
        threading.Thread(target=self._write_for_ever, args=(process,), name="metrics", daemon=True).start()

    def read(self, process: str) -> str | None:
        """What the process wrote last; None if it does not write any more."""
        path = self.path(process)
        try:
            if time.time() - path.stat().st_mtime <= limits.metrics_stale_s:
                return path.read_text()
        except FileNotFoundError:
            pass
        return None

    def _write_for_ever(self, process: str) -> None:
        from prometheus_client import REGISTRY, write_to_textfile

        while True:
            try:
                write_to_textfile(str(self.path(process)), REGISTRY)
            except OSError as error:
                _log.warning("metrics_not_written", error=error.strerror)
            time.sleep(limits.metrics_pause_s)
