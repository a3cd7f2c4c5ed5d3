"""Options that several commands of a deployment share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denizen.deployment.layout import default_data_directory

DataOption = Annotated[
    Path | None,
    Parameter(
        name="--data",
        help="Data directory. Default: $DENIZEN_DATA, else /var/lib/denizen for root, else ~/.local/share/denizen.",
    ),
]
JsonOption = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]


def data_directory(data: Path | None) -> Path:
    """Return the data directory that the option, the environment or the default names, as an absolute path."""
    return (data or default_data_directory()).expanduser().absolute()
