"""`denizen shards`: list, add, drain, remove, weight."""

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from denizen.api.operations import ShardDocument
from denizen.cli.documents import print_json
from denizen.cli.logs import last_lines
from denizen.cli.operating import DetachOption, at_the_desk, print_shards, told_if_left
from denizen.cli.options import DataOption, JsonOption, data_directory
from denizen.deployment.layout import Deployment
from denizen.errors import BadDeployment, Refused, Unavailable
from denizen.limits import shard_joins_s, shard_poll_s
from denizen.operators.desk import Desk

app = App(
    name="shards",
    help="The deployment's shards: list them, add one, drain one, weigh them.",
    help_epilogue="""
A new shard takes its share at once, while the service serves; a drained one
gives everything away, and then its server stops and its data directory is
put aside.

Examples:

    denizen shards list
    denizen shards add
    denizen shards add --dsn postgresql://me:secret@db3/denizen
    denizen shards add --no-rebalance
    denizen shards drain s2
    denizen shards remove s4
    denizen shards weight s3 2
""",
    help_format="plaintext",
)

Shard = Annotated[str, Parameter(help="The shard, such as s2.")]
Rebalance = Annotated[bool, Parameter(name="--rebalance", negative="--no-rebalance", help="Move buckets at once.")]


@app.command(name="list")
def list_(
    *,
    measure: Annotated[bool, Parameter(negative="--no-measure", help="Measure users, bytes and requests.")] = True,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Every shard: status, weight, buckets, what it holds, and how even they are."""

    async def work(desk: Desk) -> None:
        shards, measured = await desk.shards(), await desk.balance() if measure else None
        if json:
            print_json({"items": shards, "balance": measured})
        else:
            print_shards(shards, measured)

    at_the_desk(data, work)


@app.command
def add(
    *,
    dsn: Annotated[
        str | None, Parameter(help="An empty database of yours. Default: a server is made and run for the shard.")
    ] = None,
    weight: Annotated[float, Parameter(help="The part that it is to take, relative to the others.")] = 1.0,
    rebalance: Rebalance = True,
    detach: DetachOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Add a shard, wait until it has joined, and let it take its share."""
    from denizen.cli.rebalance import run_and_show

    async def work(desk: Desk) -> None:
        shard = await _joined(desk, await desk.add_shard(dsn, weight), data)
        if not rebalance:
            print_json(shard) if json else print(f"shard {shard.id} has joined; `denizen rebalance run` fills it")
            return
        if not json:
            print(f"shard {shard.id} has joined")
        with _done_so_far(f"shard {shard.id} has joined"):
            await run_and_show(desk, await desk.plan("users"), as_json=json, detach=detach)

    at_the_desk(data, work)


@app.command
def drain(
    shard: Shard,
    /,
    *,
    purge: Annotated[bool, Parameter(negative="", help="Remove the data directory in the end.")] = False,
    undo: Annotated[bool, Parameter(negative="", help="Keep a draining shard after all.")] = False,
    rebalance: Rebalance = True,
    detach: DetachOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Move everything away from a shard; then its server stops."""
    from denizen.cli.rebalance import run_and_show

    async def work(desk: Desk) -> None:
        if undo:
            kept = await desk.keep(shard)
            print_json(kept) if json else print(f"shard {shard} stays; `denizen rebalance run` fills it again")
            return
        document = await desk.drain(shard, purge=purge)
        with _done_so_far(f"shard {shard} is {document.status}"):
            plan = await desk.plan("users") if rebalance and document.buckets else None
            if plan is None or not plan.moves:
                print_json(document) if json else print(f"shard {shard} is {document.status}")
                return
            await run_and_show(desk, plan, as_json=json, detach=detach)
        if not json and not detach:
            print(f"shard {shard} owns nothing now; it stops when the grace is over: `denizen shards list`")

    at_the_desk(data, work)


@app.command
def remove(
    shard: Shard,
    /,
    *,
    lost: Annotated[
        bool, Parameter(negative="", help="My word that its server is gone for good; only if it owns no buckets.")
    ] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Give up a shard that does not get ready. One that runs is drained instead."""

    async def work(desk: Desk) -> None:
        document = await desk.remove(shard, lost=lost)
        print_json(document) if json else print(f"shard {shard} is removed; its name is never used again")

    at_the_desk(data, work)


@app.command
def weight(shard: Shard, weight: float, /, *, data: DataOption = None, json: JsonOption = False) -> None:
    """Set the part that a shard is to take, relative to the others; the next plan heeds it."""

    async def work(desk: Desk) -> None:
        document = await desk.set_weight(shard, weight)
        print_json(document) if json else print(
            f"shard {shard} weighs {document.weight:g}; see `denizen rebalance plan`"
        )

    at_the_desk(data, work)


@contextmanager
def _done_so_far(what: str) -> Iterator[None]:
    """If the buckets cannot be moved now, what was done before stays: say both."""
    try:
        yield
    except (Refused, Unavailable) as error:
        raise BadDeployment(f"{what}, but no bucket moves: {error.detail}; then `denizen rebalance run`") from error


async def _joined(desk: Desk, shard: ShardDocument, data: Path | None) -> ShardDocument:
    """Wait until the supervisor has made or prepared its server; what keeps it from that is told at once."""
    log, told = Deployment.load(data_directory(data)).logs / "denizen.log", None
    left = f"shard {shard.id} goes on joining: see `denizen shards list`; `denizen rebalance run` fills it"
    try:
        with told_if_left(left):
            async with asyncio.timeout(shard_joins_s):
                while shard.status == "joining":
                    await asyncio.sleep(shard_poll_s)
                    shard = await desk.shard(shard.id)
                    problem = problem_of(log, shard.id)
                    if problem is not None and problem != told:
                        told = problem
                        print(f"not yet: {problem}; it goes on trying", file=sys.stderr)
    except TimeoutError:
        raise BadDeployment(
            f"shard {shard.id} has not joined after {shard_joins_s:.0f} s: "
            f"{told or 'does `denizen up` run? See `denizen logs`'}; "
            f"it goes on trying, `denizen shards remove {shard.id}` gives it up"
        ) from None
    if shard.status == "removed":
        raise BadDeployment(
            f"shard {shard.id} was given up before it had joined; {told or 'see `denizen logs denizen`'}"
        )
    return shard


def problem_of(log: Path, shard: str) -> str | None:
    """What the supervisor's agent said last about this shard."""
    with suppress(OSError):
        for line in reversed(last_lines(log, 100, log.stat().st_size)):
            _, agent, problem = line.partition(" agent: ")
            if agent and re.search(rf"\b{shard}\b", problem):
                return problem.removesuffix("; trying again")
    return None
