"""`denizen logs`: what a deployment's processes said."""

import json as json_module
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.event_plane import PROCESSES
from denizen.deployment.layout import READ_SERVER, Deployment
from denizen.errors import BadDeployment

POLL_SECONDS = 0.1
BLOCK_BYTES = 65_536

app = App(
    name="logs",
    help="Show the last lines that a deployment's processes logged.",
    help_epilogue="""
Sources: denizen (the supervisor), gateway, nats, relay, projector, control-1 …, read1, each shard
by its name; all of them if none is named.

Examples:

    denizen logs
    denizen logs gateway --follow
    denizen logs s1 s2 --lines 200
""",
    help_format="plaintext",
)


@app.default
def logs(
    *sources: Annotated[str, Parameter(help="Whose log: denizen, gateway, s1 …")],
    data: DataOption = None,
    lines: Annotated[
        int, Parameter(name=["--lines", "-n"], help="Lines of each source.", validator=Number(gte=0))
    ] = 20,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", help="Go on with new lines.")] = False,
    json: JsonOption = False,
) -> None:
    """Print the ends of the logs, each line with its source."""
    deployment = Deployment.load(data_directory(data))
    paths = _paths(deployment, sources)
    width = max(len(source) for source in paths)

    def show(source: str, line: str) -> None:
        text = json_module.dumps({"source": source, "line": line}) if json else f"{source:<{width}} │ {line}"
        print(text if json or len(paths) > 1 else line, flush=True)

    positions = {}
    for source, path in paths.items():
        positions[source] = path.stat().st_size if path.exists() else 0
        for line in last_lines(path, lines, positions[source]):
            show(source, line)
    if follow:
        _follow(paths, positions, show)


def _paths(deployment: Deployment, sources: Iterable[str]) -> dict[str, Path]:
    managed = [shard.id for shard in deployment.present if shard.directory is not None]
    voters = sorted(path.stem for path in deployment.logs.glob("control-*.log"))
    known = ["denizen", "gateway", "nats", *PROCESSES, *voters, READ_SERVER, *managed]
    chosen = list(dict.fromkeys(sources)) or known
    for source in chosen:
        if source not in known:
            raise BadDeployment(f"no log of {source!r}; there are: {', '.join(known)}")
    return {source: deployment.logs / f"{source}.log" for source in chosen}


def last_lines(path: Path, count: int, end: int) -> list[str]:
    """Return the last `count` lines before byte `end`, reading the file from its end."""
    if count == 0 or end == 0:
        return []
    with path.open("rb") as file:
        tail = b""
        while end > 0 and tail.count(b"\n") <= count:
            size = min(BLOCK_BYTES, end)
            end -= size
            file.seek(end)
            tail = file.read(size) + tail
    return [line.decode(errors="replace") for line in tail.splitlines()[-count:]]


def _follow(paths: dict[str, Path], positions: dict[str, int], show: Callable[[str, str], None]) -> None:
    while True:
        for source, path in paths.items():
            if not path.exists():
                continue
            if path.stat().st_size < positions[source]:
                positions[source] = 0  # the log was put aside and begun anew
            with path.open("rb") as file:
                file.seek(positions[source])
                for line in _whole_lines(file):
                    positions[source] += len(line)
                    show(source, line.decode(errors="replace").rstrip("\n"))
        time.sleep(POLL_SECONDS)


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    return (line for line in file if line.endswith(b"\n"))
