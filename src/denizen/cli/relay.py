"""`denizen relay`: the process that publishes the events of a deployment's shards."""

from cyclopts import App

from denizen.cli.options import DataOption, MetricsOption, data_directory, serve_metrics
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment

app = App(
    name="relay",
    help="Publish the events of a deployment's shards on its bus.",
    help_epilogue="""`denizen up` starts one by itself. Another one, here or on another
machine, stands by: one relay of each shard publishes at a time.

Examples:

    denizen relay
    denizen relay --data ./people --metrics 127.0.0.1:9101
""",
    help_format="plaintext",
)


@app.default
def relay(
    *,
    data: DataOption = None,
    metrics: MetricsOption = None,
) -> None:
    """Publish until a signal asks to stop."""
    import uvloop

    from denizen.bus.process import serve_relays
    from denizen.collecting import calm_the_collector
    from denizen.deployment.control_access import map_source_of
    from denizen.deployment.process_metrics import ProcessMetrics
    from denizen.logs import configure_logs

    deployment = Deployment.load(data_directory(data))
    bus = deployment.bus
    if bus is None:
        raise BadDeployment(f"the deployment in {deployment.directory} has no bus: start it (`denizen up`) with one")
    configure_logs()
    ProcessMetrics(deployment).keep_writing("relay")
    serve_metrics(metrics)
    deployment.use_keyring()
    calm_the_collector()
    uvloop.run(serve_relays(deployment.places, map_source_of(deployment), bus))
