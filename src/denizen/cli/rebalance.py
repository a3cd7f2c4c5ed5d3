"""`denizen rebalance`: plan, run, status, pause, resume, cancel, and how gently it goes."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from denizen.api.operations import PlanDocument, RebalanceDocument, RebalanceSettings, SettingsChanges
from denizen.cli.documents import print_json, print_table
from denizen.cli.operating import By, DetachOption, at_the_desk, print_plan, size_text, told_if_left
from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.cli.rebalance_view import follow, show_status
from denizen.errors import BadConfiguration
from denizen.limits import plans_kept_max
from denizen.operators.desk import Desk

app = App(
    name="rebalance",
    help="Make the shards even: plan it, run it, watch it, pause, resume or cancel it.",
    help_epilogue="""
A plan is the run: `plan` prints every move and keeps the plan, `run --plan`
carries out exactly that, or refuses it if the map has changed meanwhile.
Ctrl-C leaves the view; the work goes on.

Examples:

    denizen rebalance plan
    denizen rebalance plan --by bytes --json > plan.json
    denizen rebalance run --plan plan.json
    denizen rebalance run
    denizen rebalance status --watch
    denizen rebalance pause
    denizen rebalance settings --moves-per-server 1 --copy-rate 20000
""",
    help_format="plaintext",
)

Natural = Annotated[int | None, Parameter(validator=Number(gte=0))]


@app.command
def plan(
    *,
    by: By = "users",
    moves: Annotated[bool, Parameter(negative="", help="Print every move too.")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a rebalance would do; changes nothing."""
    found = at_the_desk(data, lambda desk: desk.plan(by))
    path = _kept(data, found)
    if json:
        print_json(found)
        return
    print_plan(found)
    if moves:
        rows = [
            (each.bucket, each.source, each.target, f"{each.users:,}", size_text(each.bytes)) for each in found.moves
        ]
        print_table(("bucket", "from", "to", "users", "size"), rows)
    if found.moves:
        print(f"run it: denizen rebalance run --plan {found.id}  (kept in {path})")
    else:
        print("the shards are even: there is nothing to move")


@app.command
def run(
    *,
    plan: Annotated[
        str | None,
        Parameter(help="Id of a plan, or a file with one (- for standard input).", allow_leading_hyphen=True),
    ] = None,
    by: By = "users",
    detach: DetachOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Carry out a plan; without one, make it and carry it out."""
    given = _read_plan(plan, data) if plan is not None else None

    async def work(desk: Desk) -> None:
        document = given or await desk.plan(by)
        if not document.moves:
            print_json(await desk.status()) if json else print("the shards are even: there is nothing to move")
            return
        await run_and_show(desk, document, as_json=json, detach=detach)

    at_the_desk(data, work)


async def run_and_show(desk: Desk, plan: PlanDocument, *, as_json: bool, detach: bool) -> None:
    """Start this plan, and show it until its end; exit code 1 if a move failed."""
    if not plan.moves:
        print_json(plan) if as_json else print("the shards are even: there is nothing to move")
        return
    if not as_json:
        print_plan(plan)
    started = await desk.run(plan)
    if detach:
        print_json(started) if as_json else print("it runs; `denizen rebalance status --watch` shows it")
        return
    with told_if_left("the rebalance goes on: `denizen rebalance status`, `pause`, `cancel`"):
        ended = await follow(desk, quiet=as_json)
    if as_json:
        print_json(ended)
    if ended is not None and ended.status == "paused":
        print("it is paused: see `denizen rebalance status`, then resume or cancel it", file=sys.stderr)
    if ended is None or ended.failed or ended.status != "done":
        sys.exit(1)


@app.command
def status(
    *,
    watch: Annotated[bool, Parameter(negative="", help="Show it until its end.")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """How far the rebalance is: every move, its stage and for how long, rate, time left, how long writes were held."""

    async def work(desk: Desk) -> None:
        found = await desk.status()
        if watch:
            await follow(desk, quiet=json)
            found = await desk.status()
        if json:
            print_json(found)
        elif not watch:
            show_status(found, await desk.control.progress())

    at_the_desk(data, work)


@app.command
def pause(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Begin nothing more and stop at the next safe place; nothing is undone."""
    _tell(at_the_desk(data, Desk.pause), json)


@app.command
def resume(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Go on."""
    _tell(at_the_desk(data, Desk.resume), json)


@app.command
def cancel(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Begin nothing more and undo what is not committed; what is committed stays where it is."""
    _tell(at_the_desk(data, Desk.cancel), json)


@app.command
def clean(*, data: DataOption = None, json: JsonOption = False) -> None:
    """Remove what sources keep of moved buckets now, without waiting for the grace."""
    count = at_the_desk(data, Desk.clean)
    print_json({"moves": count}) if json else print(f"the sources' copies of {count} buckets are being removed")


@app.command
def settings(
    *,
    moves_per_server: Annotated[Natural, Parameter(help="Moves under way at a time, on each server.")] = None,
    hold_budget: Annotated[Natural, Parameter(help="Milliseconds that a fence may hold writes.")] = None,
    holds: Annotated[Natural, Parameter(help="Fences of a move that may be given up before it fails.")] = None,
    grace: Annotated[Natural, Parameter(help="Seconds for which a source keeps its copy.")] = None,
    copy_rate: Annotated[Natural, Parameter(help="Events copied per second; 0: no limit but latency.")] = None,
    clean_rate: Annotated[Natural, Parameter(help="Rows removed per second; 0: no limit but latency.")] = None,
    latency: Annotated[
        Natural, Parameter(help="Milliseconds of a shard's writes above which moves slow down; 0: 3 times the usual.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show how gently buckets are moved, or change it; what is under way heeds it."""
    changes = SettingsChanges(moves_per_server, hold_budget, holds, grace, copy_rate, clean_rate, latency)

    async def work(desk: Desk) -> RebalanceSettings:
        return await (desk.settings() if changes == SettingsChanges() else desk.change_settings(changes))

    found = at_the_desk(data, work)
    if json:
        print_json(found)
    else:
        print_table(("setting", "value"), msgspec.structs.asdict(found).items())


def _tell(rebalance: RebalanceDocument, as_json: bool) -> None:
    if as_json:
        print_json(rebalance)
    else:
        print(
            f"the rebalance is {rebalance.status}: {rebalance.committed:,} of {rebalance.moves:,} moves are committed"
        )


def _kept(data: Path | None, plan: PlanDocument) -> Path:
    """Keep the plan in the data directory, so that it can be run by its id; the oldest ones go. None of them runs:
    while a rebalance is under way no plan is made.
    """
    directory = data_directory(data) / "run" / "plans"
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{plan.id}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    others = sorted((each for each in directory.glob("*.json") if each != path), key=lambda each: each.stat().st_mtime)
    for old in others[: max(0, len(others) + 1 - plans_kept_max)]:
        old.unlink(missing_ok=True)
    return path


def _read_plan(named: str, data: Path | None) -> PlanDocument:
    kept = data_directory(data) / "run" / "plans" / f"{named}.json"
    try:
        content: Any = (
            sys.stdin.buffer.read() if named == "-" else (kept if kept.exists() else Path(named)).read_bytes()
        )
        return msgspec.json.decode(content, type=PlanDocument)
    except OSError as error:
        raise BadConfiguration(f"there is no plan {named}: neither a kept one nor a file ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise BadConfiguration(f"{named} is no plan of `denizen rebalance plan --json`: {error}") from error
