"""Options that several commands of a deployment share."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from denizen.cli.errors import CalledWrongly
from denizen.deployment.config import parse_listen
from denizen.deployment.layout import default_data_directory

DataOption = Annotated[
    Path | None,
    Parameter(
        name="--data",
        help="Data directory. Default: $DENIZEN_DATA, else /var/lib/denizen for root, else ~/.local/share/denizen.",
    ),
]
UserId = Annotated[UUID, Parameter(name="ID", help="User id.")]
MetricsOption = Annotated[str | None, Parameter(name="--metrics", help="HOST:PORT where Prometheus finds the metrics.")]
JsonOption = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]


def data_directory(data: Path | None) -> Path:
    """Return the data directory that the option, the environment or the default names, as an absolute path."""
    return (data or default_data_directory()).expanduser().absolute()


def kind_of(file: str) -> str:
    """The format that a file of users has by its name: "csv", "tsv" or "ndjson"."""
    name = file.lower().removesuffix(".gz").removesuffix(".zst")
    return "csv" if name.endswith(".csv") else "tsv" if name.endswith((".tsv", ".tab")) else "ndjson"


def address(option: str, text: str) -> tuple[str, int]:
    """The host and the port that an option names. Raises `CalledWrongly`, which says what is wrong with it."""
    try:
        return parse_listen(text)
    except ValueError as error:
        raise CalledWrongly(f"{option} {text!r}: {error}") from None


def serve_metrics(metrics: str | None) -> None:
    """Show this process's metrics where the option says, if it says so."""
    import prometheus_client

    if metrics is not None:
        host, port = address("--metrics", metrics)
        prometheus_client.start_http_server(port, host)
