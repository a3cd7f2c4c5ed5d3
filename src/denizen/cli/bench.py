"""`denizen bench`: benchmarks, each against something else on the same machine in the same run."""

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from denizen.bench.report import Report
from denizen.cli.documents import print_json
from denizen.cli.options import JsonOption

app = App(
    name="bench",
    help="""Measure Denizen on this machine: throwaway deployments, results as ratios.

Figures are printed, and written to bench-results/ as JSON.

Examples:

    denizen bench all
    denizen bench serving --rounds 5
    denizen bench import --rows 1000000
    denizen bench verify
    denizen bench bus
    denizen bench sealing
    denizen bench cqrs
    denizen bench cqrs --parts lag burden --seconds 5
    denizen bench rebalance --users 2000000
""",
    help_format="plaintext",
)

Rows = Annotated[int, Parameter(help="People to generate.", validator=Number(gte=1))]
Runs = Annotated[int, Parameter(help="How often; the median counts.", validator=Number(gte=1))]
Seconds = Annotated[int, Parameter(help="How long each measurement takes.", validator=Number(gte=1))]
Shards = Annotated[int, Parameter(help="PostgreSQL servers.", validator=Number(gte=1, lte=64))]


@app.command(name="all")
def all_(*, rows: Rows = 200_000, json: JsonOption = False) -> None:
    """A bounded run of what the user service promises: serving, import, verify. About five minutes."""
    serving(rounds=3, seconds=4, json=json)
    import_(rows=rows, json=json)
    verify(rows=rows, json=json)


@app.command
def serving(*, rounds: Runs = 3, seconds: Seconds = 5, shards: Shards = 4, json: JsonOption = False) -> None:
    """Creations against pgbench on the same servers, reads against an empty route."""
    from denizen.bench.serving import run

    _show(run(rounds=rounds, seconds=seconds, shards=shards), json)


@app.command
def tables(*, rounds: Runs = 3, json: JsonOption = False) -> None:
    """Shared tables against tables partitioned by bucket."""
    from denizen.bench.tables import run

    _show(run(rounds=rounds), json)


@app.command(name="import")
def import_(
    *, rows: Rows = 1_000_000, runs: Runs = 3, shards: Shards = 4, workers: int | None = None, json: JsonOption = False
) -> None:
    """An import against a raw binary COPY of the rows that it made."""
    from denizen.bench.importing import run

    _show(run(rows=rows, runs=runs, shards=shards, workers=workers), json)


@app.command
def verify(*, rows: Rows = 500_000, runs: Runs = 3, shards: Shards = 4, json: JsonOption = False) -> None:
    """The rate of `denizen verify`."""
    from denizen.bench.verifying import run

    _show(run(rows=rows, runs=runs, shards=shards), json)


@app.command
def bus(
    *,
    parts: Annotated[
        tuple[Literal["lag", "cost", "burden"], ...], Parameter(help="Which parts to run.", consume_multiple=True)
    ] = ("lag", "cost", "burden"),
    seconds: Annotated[float, Parameter(help="How long each measurement takes.", validator=Number(gte=1))] = 10.0,
    rounds: Runs = 3,
    shards: Shards = 4,
    json: JsonOption = False,
) -> None:
    """Lag and cost of the event bus, and what it takes from appends."""
    from denizen.bench.bus import run

    _show(run(shards=shards, seconds=seconds, rounds=rounds, parts=parts), json)


@app.command
def cqrs(
    *,
    parts: Annotated[
        tuple[Literal["replay", "search", "lag", "burden", "wiped"], ...],
        Parameter(help="Which parts to run.", consume_multiple=True),
    ] = ("replay", "search", "lag", "burden", "wiped"),
    events: Annotated[int, Parameter(help="Events to replay.", validator=Number(gte=10_000))] = 1_500_000,
    users: Annotated[int, Parameter(help="Users to search.", validator=Number(gte=1_000))] = 1_000_000,
    seconds: Annotated[float, Parameter(help="How long loads last.", validator=Number(gte=4))] = 10.0,
    rounds: Runs = 4,
    json: JsonOption = False,
) -> None:
    """The read side: replay, searches, lag, what it takes from appends, NATS wiped. About eleven minutes."""
    from denizen.bench.cqrs.run import Plan, run

    _show(run(parts, Plan(events=events, users=users, seconds=seconds, rounds=rounds)), json)


@app.command
def sealing(*, rounds: Runs = 8, seconds: Seconds = 3, json: JsonOption = False) -> None:
    """What the encryption of personal data adds to a registration, in processor time. About a minute."""
    from denizen.bench.sealing import run

    _show(run(rounds, seconds), json)


@app.command
def rebalance(
    *,
    users: Annotated[int, Parameter(help="People before it grows.", validator=Number(gte=1))] = 100_000,
    seconds: Annotated[int, Parameter(help="Of load before anything moves.", validator=Number(gte=1))] = 20,
    weight: Annotated[float, Parameter(help="Of the new shard; less moves less, and is over sooner.")] = 1.0,
    json: JsonOption = False,
) -> None:
    """A deployment grows from two shards to three under load: holds, errors, movement, balance. About three minutes."""
    from denizen.bench.rebalancing import run

    _show(run(users=users, seconds=seconds, weight=weight), json)


def _show(report: Report, json: bool) -> None:
    print_json(report.document) if json else Console().print(report.table)
