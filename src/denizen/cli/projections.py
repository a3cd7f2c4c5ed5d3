"""`denizen projections`: how the read models are, and what an operator does about them."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
from cyclopts import App, Parameter

from denizen.cli.documents import print_json
from denizen.cli.options import DataOption, JsonOption
from denizen.cli.read_models import with_control
from denizen.errors import BadDeployment
from denizen.projections.catalogue import projection_of

app = App(
    name="projections",
    help="How the read models are: versions, lag, parked streams; pause, resume, retry, skip.",
    help_epilogue="""
A stream is parked when a projection cannot take one of its events; the other
streams flow. `retry` tries the event again (after an upgrade), `skip` goes on
behind it.

Examples:

    denizen projections
    denizen projections pause activity
    denizen projections resume activity
    denizen projections retry directory 01890a5d-ac96-8b2f-8d0a-3c1f2e4d5b6a
""",
    help_format="plaintext",
)

Name = Annotated[str, Parameter(help="The projection, such as directory.")]
Stream = Annotated[UUID, Parameter(help="The user's id.")]


@app.default
def show(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Every version of every projection, and every parked stream."""
    versions, parked = with_control(data, lambda control: control.overview())
    if json:
        print(msgspec.json.encode({"versions": versions, "parked": parked}).decode())
        return
    for version in versions:
        words = [f"{version.projection} version {version.version}: {version.state}"]
        words += ["live"] if version.live else []
        if version.lag_events is not None:
            words.append(f"{version.lag_events:,} events behind")
        if version.lag_ms_p99 is not None:
            words.append(f"visible after {version.lag_ms_p50:,.0f} ms (p50), {version.lag_ms_p99:,.0f} ms (p99)")
        words += [version.reason] if version.reason else []
        print(", ".join(words))
    for each in parked:
        print(
            f"parked in {each.projection}: {each.stream} at version {each.stream_version} ({each.type}): {each.error}"
        )


@app.command
def pause(name: Name, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Stop applying events to a projection; it goes on answering with what it has."""
    _set_paused(data, name, paused=True)
    _tell({"projection": name, "state": "paused"}, json, f"{name} is paused")


@app.command
def resume(name: Name, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Go on applying events, from where it stopped."""
    _set_paused(data, name, paused=False)
    _tell({"projection": name, "state": "running"}, json, f"{name} goes on")


@app.command
def retry(name: Name, stream: Stream, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Have the projector try a parked stream again."""
    _wish(data, name, stream, "retry")
    _tell({"projection": name, "stream": stream, "wish": "retry"}, json, "it will be tried again")


@app.command
def skip(name: Name, stream: Stream, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Have the projector go on behind the event that a parked stream waits at."""
    _wish(data, name, stream, "skip")
    _tell({"projection": name, "stream": stream, "wish": "skip"}, json, "it will be passed over")


def _set_paused(data: Path | None, name: str, *, paused: bool) -> None:
    if not with_control(data, lambda control: control.set_paused(name, paused=paused)):
        projection_of(name)
        raise BadDeployment(
            f"{name} has no version that could be {'paused' if paused else 'resumed'}: see `denizen projections`"
        )


def _wish(data: Path | None, name: str, stream: UUID, what: str) -> None:
    if not with_control(data, lambda control: control.wish(name, stream, what)):
        projection_of(name)
        raise BadDeployment(f"{name} has not parked this user's stream: see `denizen projections`")


def _tell(document: dict[str, Any], as_json: bool, text: str) -> None:
    print_json(document) if as_json else print(text)
