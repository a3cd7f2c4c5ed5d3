"""`denizen control`: a voter of the control plane, as a process."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from denizen.cli.options import DataOption, data_directory
from denizen.deployment.layout import Deployment

app = App(
    name="control",
    help="Run one voter of a deployment's control plane.",
    help_epilogue="""`denizen up` starts all of them by itself and keeps them running; this is what
it starts.

Examples:

    denizen control --data ./people --node 1
""",
    help_format="plaintext",
)


@app.default
def control(*, data: DataOption = None, node: Annotated[int, Parameter(help="Which of the voters, from 1.")]) -> None:
    """Vote, and lead if elected, until a signal asks to stop."""
    import uvloop

    from denizen.deployment.control_process import serve_control
    from denizen.logs import configure_logs

    configure_logs()
    sys.exit(uvloop.run(serve_control(Deployment.load(data_directory(data)), node)))
