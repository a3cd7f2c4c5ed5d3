"""`denizen verify`: proof that events, state and login names agree, on every shard, while the service serves."""

import asyncio
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from denizen import limits
from denizen.cli.options import DataOption, JsonOption, data_directory

if TYPE_CHECKING:  # loaded when it runs
    from denizen.bulk.verification.run import Outcome

app = App(
    name="verify",
    help="""Fold every event and compare with everything that is kept beside the events.

Users against their events, positions and versions without holes, heads and digests of buckets, login names against
users in both directions across shards, idempotency records. It reads one snapshot of each shard, so live writes raise
no alarm. Exit code: 0 if everything agrees, 1 if not.

--repair mends one kind of difference, which a restore of several shards can leave: a login name on one shard that
does not fit its user on another. The user's events decide. Then everything is verified again.

Examples:

    denizen verify
    denizen verify --repair
    denizen verify --data ./people --show 100
    denizen verify --json
""",
    help_format="plaintext",
)


class _Watcher:
    """A bar on a terminal, a line now and then elsewhere, nothing if it is to be quiet."""

    def __init__(self, bar: Progress | None, *, quiet: bool) -> None:
        self._bar = bar
        self._quiet = quiet
        self._began = self._last = time.monotonic()
        self._total = 0

    def begin(self, events: int) -> None:
        self._total = events
        if self._bar is not None:
            self._bar.add_task("Verifying", total=events, facts="")

    def advance(self, events: int, differences: int) -> None:
        now = time.monotonic()
        facts = f"{events:,} events, {events / max(now - self._began, 0.001):,.0f}/s"
        facts += f", {differences:,} differences" if differences else ""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=events, facts=facts)
        elif not self._quiet and now - self._last > 5:
            self._last = now
            share = 100 * events / self._total if self._total else 100
            print(f"verify: {share:.0f} %, {facts}", file=sys.stderr, flush=True)


@app.default
def verify(
    *,
    data: DataOption = None,
    show: Annotated[int, Parameter(help="How many differences to print.", validator=Number(gte=0))] = 20,
    workers: Annotated[
        int | None, Parameter(help="Worker processes. Default: one a core, at most 4.", validator=Number(gte=1, lte=64))
    ] = None,
    repair: Annotated[
        bool, Parameter(negative="", help="Mend login names that do not fit their users on other shards.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Verify the deployment."""
    from denizen.bulk.verification.repair import mendable
    from denizen.bulk.verification.repair import repair as mend

    place, count = data_directory(data), workers or min(os.cpu_count() or 1, limits.bulk_workers_max)
    outcome = _run(place, count, quiet=json)
    while repair and (wrong := mendable(outcome.differences)):
        asyncio.run(mend(place, wrong))
        before, outcome = outcome, _run(place, count, quiet=json)
        left = mendable(outcome.differences)
        print(f"verify: {len(wrong) - len(left):,} of {len(wrong):,} login names mended", file=sys.stderr)
        if sum(outcome.by_kind.values()) >= sum(before.by_kind.values()):
            break
    if json:
        print(msgspec.json.encode(outcome).decode())
    else:
        _print(outcome, show)
    sys.exit(0 if outcome.ok else 1)


def _run(data: Path, workers: int, *, quiet: bool) -> "Outcome":
    from denizen.bulk.verification.run import verify as run

    console = Console(stderr=True, highlight=False)
    bar = _bar(console) if console.is_terminal and not quiet else None
    with bar or nullcontext():
        return asyncio.run(run(data, _Watcher(bar, quiet=quiet), workers=workers))


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[facts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _print(outcome: "Outcome", show: int) -> None:
    console = Console(highlight=False)
    facts = (
        f"{outcome.events:,} events, {outcome.users:,} users, {outcome.login_names:,} login names, {outcome.buckets:,} "
        f"buckets on {outcome.shards} shards in {outcome.seconds:.1f} s ({outcome.events_per_second:,} events/s)"
    )
    if outcome.unsettled:
        facts += f"; {outcome.unsettled:,} changes of login names under way"
    if outcome.ok:
        console.print(f"[green]✓[/] everything agrees: {facts}", soft_wrap=True)
        return
    total = sum(outcome.by_kind.values())
    console.print(f"[red]✗[/] {total:,} differences: {facts}", soft_wrap=True)
    for kind, count in sorted(outcome.by_kind.items()):
        console.print(f"  {count:,} {kind}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("kind", "bucket", "user", "login name", "what"):
        table.add_column(column, overflow="fold")
    for each in outcome.differences[:show]:
        user = str(each.user_id) if each.user_id else "–"
        table.add_row(each.kind, str(each.bucket), user, escape(each.login_name or "–"), escape(each.detail))
    console.print(table)
    if total > show:
        console.print(f"  … and {total - min(show, total):,} more: --show {total}, or --json", soft_wrap=True)
