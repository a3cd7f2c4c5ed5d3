"""`denizen projector`: the process that keeps a deployment's read models."""

from cyclopts import App

from denizen.cli.options import DataOption, MetricsOption, data_directory, serve_metrics
from denizen.deployment.layout import Deployment

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
    metrics: MetricsOption = None,
) -> None:
    """Project until a signal asks to stop."""
    import uvloop

    from denizen.collecting import calm_the_collector
    from denizen.deployment.process_metrics import ProcessMetrics
    from denizen.deployment.projecting import serve_projector
    from denizen.logs import configure_logs

    deployment = Deployment.load(data_directory(data))
    configure_logs()
    ProcessMetrics(deployment).keep_writing("projector")
    serve_metrics(metrics)
    calm_the_collector()
    uvloop.run(serve_projector(deployment))
