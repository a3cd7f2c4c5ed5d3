"""What the operators' commands share: the desk of the deployment in the data directory, and how figures are printed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from denizen.api.operations import BalanceDocument, MeasuredBalance, PlanDocument, ShardDocument, ShareDocument
from denizen.cli.documents import print_table
from denizen.cli.options import data_directory
from denizen.deployment.layout import Deployment
from denizen.deployment.lock import holder
from denizen.errors import BadDeployment, Unavailable
from denizen.operators.desk import Desk
from denizen.operators.opening import desk_of

T = TypeVar("T")

By = Annotated[Literal["users", "bytes", "requests"], Parameter(help="What is to be even.")]
DetachOption = Annotated[
    bool, Parameter(name="--detach", negative="", help="Do not wait for the end, and show nothing of it.")
]


def at_the_desk(data: Path | None, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Do this at the desk of the deployment in the data directory."""

    async def main() -> T:
        deployment = Deployment.load(data_directory(data))
        try:
            return await work(desk_of(deployment))
        except Unavailable:
            if holder(deployment.lock_path) is not None:
                raise
            raise BadDeployment(
                f"the deployment in {deployment.directory} does not run: start it with `denizen up`"
            ) from None

    return asyncio.run(main())


@contextmanager
def told_if_left(what: str) -> Iterator[None]:
    """Ctrl-C within the block leaves the view, and not the work: say what goes on."""
    try:
        yield
    except asyncio.CancelledError:
        print(what, file=sys.stderr)
        raise


def print_shards(shards: list[ShardDocument], measured: MeasuredBalance | None) -> None:
    """A line a shard, and how even they are."""
    shares = measured.shards if measured else {}
    print_table(
        ("shard", "status", "server", "weight", "buckets", "users", "size", "requests/s", "filled"),
        [(*_facts(shard), *_share(shares.get(shard.id))) for shard in shards],
    )
    if measured is not None:
        found = measured.imbalance
        print(f"fullest ÷ fair part: users {found.users:.3f}, bytes {found.bytes:.3f}, requests {found.requests:.3f}")
        for shard, why in measured.silent.items():
            print(f"{shard} is not in these figures: {why}", file=sys.stderr)


def _facts(shard: ShardDocument) -> tuple[str, ...]:
    return shard.id, shard.status, "ours" if shard.managed else "dsn", f"{shard.weight:g}", f"{shard.buckets:,}"


def _share(share: ShareDocument | None) -> tuple[str, ...]:
    if share is None:
        return ("–",) * 4
    return f"{share.users:,}", size_text(share.bytes), f"{share.requests:,.1f}", f"{share.filled:.3f}"


def print_plan(plan: PlanDocument) -> None:
    """What a plan does, in short: what leaves where, and the shards before and after."""
    console = Console(highlight=False)
    console.print(
        f"Plan {plan.id}, by {plan.by}: {len(plan.moves):,} buckets with {plan.users:,} users and "
        f"{size_text(plan.bytes)} move, about {plan.estimate_s:,.0f} s.",
        soft_wrap=True,
    )
    console.print(balance_table(plan.before, plan.after))
    console.print(f"fullest ÷ fair part: {plan.before.imbalance:.3f} → {plan.after.imbalance:.3f}")


def balance_table(before: BalanceDocument, after: BalanceDocument) -> Table:
    """The shards before and after."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("shard")
    for column in ("buckets", "users", "size", "filled"):
        table.add_column(column, justify="right")
        table.add_column("→", justify="right")
    nothing = ShareDocument(0, 0, 0, 0.0, 0.0)
    for shard in sorted({*before.shards, *after.shards}, key=shard_order):
        one, other = before.shards.get(shard, nothing), after.shards.get(shard, nothing)
        table.add_row(
            shard, f"{one.buckets:,}", f"{other.buckets:,}", f"{one.users:,}", f"{other.users:,}",
            size_text(one.bytes), size_text(other.bytes), f"{one.filled:.3f}", f"{other.filled:.3f}",
        )  # fmt: skip
    return table


def shard_order(shard: str) -> tuple[int, str]:
    """s2 before s10."""
    return len(shard), shard


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def duration_text(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7_200 else f"{seconds / 3600:,.1f} h"
