"""`denizen projector`: the process that keeps a deployment's read models."""

from typing import Annotated

from cyclopts import App, Parameter

from denizen.cli.options import DataOption, data_directory
from denizen.deployment.config import parse_listen
from denizen.deployment.layout import Deployment
from denizen.errors import BadConfiguration

app = App(
    name="projector",
    help="Apply the events of a deployment to its read models.",
    help_epilogue="""`denizen up` starts one by itself. Another one stands by: one projector
is in charge at a time.

Examples:

    denizen projector
    denizen projector --data ./people --metrics 127.0.0.1:9102
""",
    help_format="plaintext",
)


@app.default
def projector(
    *,
    data: DataOption = None,
    metrics: Annotated[str | None, Parameter(help="HOST:PORT where Prometheus finds the metrics.")] = None,
) -> None:
    """Project until a signal asks to stop."""
    import prometheus_client
    import uvloop

    from denizen.collecting import calm_the_collector
    from denizen.deployment.process_metrics import ProcessMetrics
    from denizen.deployment.projecting import serve_projector
    from denizen.logs import configure_logs

    deployment = Deployment.load(data_directory(data))
    configure_logs()
    ProcessMetrics(deployment).keep_writing("projector")
    if metrics is not None:
        try:
            host, port = parse_listen(metrics)
        except ValueError as error:
            raise BadConfiguration(f"--metrics {metrics!r}: {error}") from None
        prometheus_client.start_http_server(port, host)
    calm_the_collector()
    uvloop.run(serve_projector(deployment))
