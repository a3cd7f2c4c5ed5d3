"""`denizen down`: stop the deployment that runs on this machine."""

import json as json_module
import os
import signal
import time
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.gateway import stop_leftover_gateway
from denizen.deployment.layout import Deployment
from denizen.deployment.lock import holder
from denizen.deployment.servers import stop_leftovers
from denizen.errors import BadDeployment

POLL_SECONDS = 0.05

app = App(
    name="down",
    help="Stop the deployment that runs on this machine, in order: the HTTP API first, then PostgreSQL.",
    help_epilogue="""The data stay. If nothing runs, that is said, and it is no error.

Examples:

    denizen down
    denizen down --data ./people --timeout 30
""",
    help_format="plaintext",
)


@app.default
def down(
    *,
    data: DataOption = None,
    timeout: Annotated[float, Parameter(help="Seconds to wait for the end.")] = 90.0,
    json: JsonOption = False,
) -> None:
    """Ask the supervisor to stop and wait until it has."""
    deployment = Deployment.load(data_directory(data))
    pid = holder(deployment.lock_path)
    if pid is not None:
        _stop_supervisor(deployment, pid, timeout, quiet=json)
        result, text = "stopped", f"Denizen in {deployment.directory} stopped."
    elif leftovers := _stop_leftovers(deployment):
        result, text = (
            "leftovers_stopped",
            f"The supervisor was gone; what it had left is stopped: {', '.join(leftovers)}.",
        )
    else:
        result, text = "not_running", f"Denizen in {deployment.directory} is not running."
    print(json_module.dumps({"result": result, "pid": pid}) if json else text)


def _stop_leftovers(deployment: Deployment) -> list[str]:
    gateway = ["gateway"] if stop_leftover_gateway(deployment) else []
    return gateway + stop_leftovers(deployment)


def _stop_supervisor(deployment: Deployment, pid: int, timeout: float, *, quiet: bool) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise BadDeployment(f"the deployment runs as another user (pid {pid}); stop it as that user") from None
    except ProcessLookupError:
        return
    deadline = time.monotonic() + timeout
    with Console(quiet=quiet).status(f"Stopping Denizen (pid {pid}) …"):
        while holder(deployment.lock_path) == pid:
            if time.monotonic() > deadline:
                raise BadDeployment(f"the deployment (pid {pid}) still stops after {timeout:.0f} s; see `denizen logs`")
            time.sleep(POLL_SECONDS)
