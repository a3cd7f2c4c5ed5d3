"""`denizen relay`: the process that publishes the events of a deployment's shards."""

from typing import Annotated

from cyclopts import App, Parameter

from denizen.cli.options import DataOption, data_directory
from denizen.deployment.config import parse_listen
from denizen.deployment.layout import Deployment
from denizen.errors import BadConfiguration, BadDeployment

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
    metrics: Annotated[str | None, Parameter(help="HOST:PORT where Prometheus finds the metrics.")] = None,
) -> None:
    """Publish until a signal asks to stop."""
    import prometheus_client
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
    if metrics is not None:
        try:
            host, port = parse_listen(metrics)
        except ValueError as error:
            raise BadConfiguration(f"--metrics {metrics!r}: {error}") from None
        prometheus_client.start_http_server(port, host)
    deployment.use_keyring()
    calm_the_collector()
    uvloop.run(serve_relays(deployment.places, map_source_of(deployment), bus))
