"""`denizen gateway`: the HTTP API of a running deployment, as a process of its own."""

from typing import Annotated

from cyclopts import App, Parameter

from denizen.cli.options import DataOption, address, data_directory
from denizen.deployment.layout import Deployment

app = App(
    name="gateway",
    help="Serve the HTTP API of a deployment whose shards run already.",
    help_epilogue="""
`denizen up` starts one by itself; this one is another, for example behind
a load balancer.

Examples:

    denizen gateway --listen 127.0.0.1:8081
    denizen gateway --data ./people --listen 0.0.0.0:8080
""",
    help_format="plaintext",
)


@app.default
def gateway(
    *, data: DataOption = None, listen: Annotated[str, Parameter(help="HOST:PORT to listen on.")] = "127.0.0.1:8080"
) -> None:
    """Serve until a signal asks to stop; requests under way are finished."""
    from denizen.http.server import serve

    host, port = address("--listen", listen)
    serve(Deployment.load(data_directory(data)), host, port)
