"""`denizen replay`: read models made anew from all events, beside the live ones."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from denizen.cli.options import DataOption, JsonOption
from denizen.cli.read_models import with_control, with_deployment
from denizen.limits import replay_workers_max

DIFFERENCES_SHOWN = 20
_VERSION_MAX = 2**31 - 1

app = App(
    name="replay",
    help="Make a new version of a read model from all events, compare it, and put it in the place of the old one.",
    help_epilogue="""
The live version goes on serving all the time. A replay that was killed or
paused goes on with `resume` or the next `run`; a second run of the same
projection is refused. After `promote` the version before stays up to date
for `rollback`, until it is removed with `cancel --version`.

Examples:

    denizen replay plan directory
    denizen replay run directory --workers 2
    denizen replay status
    denizen replay verify directory
    denizen replay promote directory
    denizen replay rollback directory
""",
    help_format="plaintext",
)

Name = Annotated[str, Parameter(help="The projection, such as directory.")]
Workers = Annotated[
    int | None,
    Parameter(
        help="Processes that load side by side. Default: one for each core.",
        validator=Number(gte=1, lte=replay_workers_max),
    ),
]
VersionOption = Annotated[
    int | None,
    Parameter(help="The version. Default: that of the newest replay.", validator=Number(gte=1, lte=_VERSION_MAX)),
]


@app.command
def plan(name: Name, /, *, workers: Workers = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Say what a replay would do; changes nothing."""
    found = with_control(data, lambda control: control.plan(name, workers))
    _print(
        found,
        json,
        f"{found.projection} version {found.version}: {found.events:,} events, about {found.rows:,} rows, "
        f"{found.parts} parts, {found.workers} workers, about {found.seconds:,.0f} s",
    )


@app.command
def run(name: Name, /, *, workers: Workers = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Make a new version, or go on with the one that is under way; ends when the projector follows it."""
    _work(name, workers, data, json=json, waiting=False)


def _work(name: str, workers: int | None, data: Path | None, *, json: bool, waiting: bool) -> None:
    from denizen.deployment import replaying

    def tell(replay: Any) -> None:
        if json:
            print(msgspec.json.encode(_facts(replay)).decode(), flush=True)
        else:
            print(_line(replay), flush=True)

    replay = with_deployment(data, lambda deployment: replaying.run(deployment, name, workers, tell, waiting=waiting))
    if replay.state != "done":
        sys.exit(1)


@app.command
def status(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Every replay and every version: how far, how fast, until when."""
    replays, versions = with_control(data, lambda control: control.status())
    if json:
        print(msgspec.json.encode({"replays": [_facts(each) for each in replays], "versions": versions}).decode())
        return
    for version in versions:
        word = "live" if version.live else version.state
        lag = f", {version.lag_events:,} events behind" if version.lag_events else ""
        print(f"{version.projection} version {version.version}: {word}{lag} {version.reason or ''}".rstrip())
    for replay in replays:
        print(_line(replay))


@app.command
def pause(name: Name, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Stop loading after the parts under way; `run` goes on."""
    with_control(data, lambda control: control.pause(name))
    _print({"projection": name, "state": "paused"}, json, f"{name} loads no more after the parts under way")


@app.command
def resume(name: Name, /, *, workers: Workers = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Go on with a replay that was paused, or whose run was killed."""
    _work(name, workers, data, json=json, waiting=True)


@app.command
def cancel(name: Name, /, *, version: VersionOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Remove a version that is not live, finished or not."""
    removed = with_control(data, lambda control: control.cancel(name, version))
    _print({"projection": name, "removed": removed}, json, f"{name} version {removed} is removed")


@app.command
def verify(name: Name, /, *, version: VersionOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Compare a version with the live one, row for row; exit code 1 if they differ."""
    found = with_control(data, lambda control: control.verify(name, version))
    verdict = found.verdict
    if json:
        events = {str(user): [_told(event) for event in history] for user, history in found.events.items()}
        print(msgspec.json.encode({"verdict": verdict, "equal": verdict.equal, "events": events}).decode())
    else:
        _show_differences(found)
    if not verdict.equal:
        sys.exit(1)


def _show_differences(found: Any) -> None:
    """Each row that differs, and what happened to its user."""
    verdict = found.verdict
    for each in verdict.differences[:DIFFERENCES_SHOWN]:
        print(f"{each.table} {' '.join(each.key)}\n    live: {each.one}\n    new:  {each.other}")
        for event in found.events.get(each.user_id, []):
            print(f"      {_told(event)}")
    if verdict.equal:
        print("equal, row for row")
    else:
        print(f"{len(verdict.differences)} rows differ, {verdict.undecided} undecided")


def _told(event: Any) -> str:
    """An event without any personal data: its data are in the user's history."""
    return (
        f"{event.position.token()} version {event.version} {event.type} {event.recorded_at.isoformat()} {event.actor}"
    )


@app.command
def promote(
    name: Name,
    /,
    *,
    version: VersionOption = None,
    unverified: Annotated[bool, Parameter(help="Even if it was not compared with the live one.", negative="")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Let readers see the new version, from one moment to the next."""
    promoted = with_control(data, lambda control: control.promote(name, version, unverified=unverified))
    _print({"projection": name, "live": promoted}, json, f"{name} version {promoted} is live")


@app.command
def rollback(name: Name, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Let readers see the version before again."""
    version = with_control(data, lambda control: control.rollback(name))
    _print({"projection": name, "live": version}, json, f"{name} version {version} is live again")


@app.command(show=False)
def worker(name: Name, version: int, /, *, data: DataOption = None) -> None:
    """Do parts of a replay; started by `run`."""
    from denizen.deployment import replaying

    with_deployment(data, lambda deployment: replaying.worker(deployment, name, version))


def _facts(replay: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(replay), "events_per_s": replay.events_per_s, "eta_s": replay.eta_s}


def _line(replay: Any) -> str:
    rate = f", {replay.events_per_s:,.0f} events/s" if replay.events_per_s else ""
    eta = f", {replay.eta_s:,.0f} s to go" if replay.eta_s is not None else ""
    error = f": {replay.error}" if replay.error else ""
    return (
        f"{replay.projection} version {replay.version}: {replay.state}, {replay.parts_done} of {replay.parts} parts, "
        f"{replay.events_done:,} of {replay.events:,} events, {replay.rows:,} rows{rate}{eta}{error}"
    )


def _print(found: Any, as_json: bool, text: str) -> None:
    print(msgspec.json.encode(found).decode() if as_json else text)
