"""The live view of a rebalance: how far, how fast, until when, how long writes were held; every move and its stage.

    control plane ── watch ──▶ newest state ──┐
    leader ───────── progress, now and then ──┴──▶ drawn twice a second

It only looks: whoever leaves it (Ctrl-C) leaves the work alone, and while no control node answers it says so and waits.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from denizen.api.operations import MoveDocument, RebalanceDocument, RebalanceStatusDocument
from denizen.cli.operating import duration_text, shard_order
from denizen.control.client import ControlClient
from denizen.control.state import ControlState
from denizen.control.wire import MoveProgress
from denizen.errors import DenizenError
from denizen.limits import view_line_s, view_refresh_s
from denizen.operators.desk import Desk, now_ms
from denizen.operators.views import status_document
from denizen.sharding.bucket_map import counts
from denizen.sharding.ranges import write_buckets

MOVES_SHOWN: Final = 12
COMMITTED: Final = ("committed", "cleaning", "done")
STAGE_COLOURS: Final = {
    "fenced": "yellow",
    "verified": "yellow",
    "releasing": "red",
    "aborting": "red",
    "committed": "green",
    "cleaning": "dim",
}


class _View(Protocol):
    def show(
        self, state: ControlState, document: RebalanceStatusDocument, progress: Sequence[MoveProgress]
    ) -> None: ...

    def lost(self, why: str) -> None: ...


async def follow(desk: Desk, *, quiet: bool = False) -> RebalanceDocument | None:
    """Show the rebalance until it pauses, or nothing of it is left to commit or to undo; what it was in the end."""
    watcher = _Watcher(desk.control)
    watching = asyncio.create_task(watcher.run())
    try:
        with _view(quiet=quiet) as view:
            while True:
                await watcher.wait(view_refresh_s)
                if watcher.problem is not None:
                    view.lost(watcher.problem)
                if watcher.state is None:
                    continue
                document = status_document(watcher.state, now_ms())
                if _is_over(document):
                    view.show(watcher.state, document, [])
                    return document.rebalance
                view.show(watcher.state, document, await _progress(desk.control))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _is_over(document: RebalanceStatusDocument) -> bool:
    rebalance = document.rebalance
    if rebalance is None or rebalance.status == "paused":
        return True
    return rebalance.status in ("done", "cancelled") and all(move.stage in COMMITTED for move in rebalance.moving)


async def _progress(control: ControlClient) -> Sequence[MoveProgress]:
    with contextlib.suppress(DenizenError):
        return await control.progress()
    return ()


class _Watcher:
    """Keeps the newest state."""

    def __init__(self, control: ControlClient) -> None:
        self._control = control
        self._changed = asyncio.Event()
        self.state: ControlState | None = None
        self.problem: str | None = None

    async def run(self) -> None:
        """Follow, for ever."""
        with contextlib.suppress(DenizenError):
            self.state = await self._control.state(linearizable=True)
        while True:
            try:
                _, self.state = await self._control.watch(self.state.revision if self.state else -1)
                self.problem = None
            except DenizenError as error:
                self.problem = error.detail
                await asyncio.sleep(view_refresh_s)
            self._changed.set()
            await asyncio.sleep(view_refresh_s / 4)  # there may be a hundred changes a second

    async def wait(self, seconds: float) -> None:
        """Return when something changed, at the latest after so long; drawn no more often than people can see."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()
        await asyncio.sleep(view_refresh_s / 4)


@contextlib.contextmanager
def _view(*, quiet: bool) -> Iterator[_View]:
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield _Silence()
    elif not console.is_terminal:
        yield _Lines()
    else:
        with Live(console=console, auto_refresh=False) as live:
            yield _Picture(live)


class _Silence:
    def show(self, state: ControlState, document: RebalanceStatusDocument, progress: Sequence[MoveProgress]) -> None:
        pass

    def lost(self, why: str) -> None:
        pass


class _Lines:
    """For logs and pipes: a line now and then, and one at the end."""

    def __init__(self) -> None:
        self._last = 0.0

    def show(self, state: ControlState, document: RebalanceStatusDocument, progress: Sequence[MoveProgress]) -> None:
        now = time.monotonic()
        if document.rebalance is not None and (now - self._last > view_line_s or _is_over(document)):
            self._last = now
            print(f"rebalance: {headline(document.rebalance)}; {holds_text(document.rebalance)}", file=sys.stderr)
            for trouble in _troubles(progress):
                print(f"rebalance: {trouble}", file=sys.stderr)

    def lost(self, why: str) -> None:
        now = time.monotonic()
        if now - self._last > view_line_s:
            self._last = now
            print(f"rebalance: {why}", file=sys.stderr)


class _Picture:
    """For people at a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._last: RenderableType = Text("")

    def show(self, state: ControlState, document: RebalanceStatusDocument, progress: Sequence[MoveProgress]) -> None:
        self._last = picture(document, progress, state)
        self._live.update(self._last, refresh=True)

    def lost(self, why: str) -> None:
        said = Text(f"{why}; the view waits", style="yellow")
        self._live.update(Group(self._last, said), refresh=True)


def picture(
    document: RebalanceStatusDocument, progress: Sequence[MoveProgress], state: ControlState | None = None
) -> RenderableType:
    """Everything about a rebalance, to be drawn."""
    rebalance = document.rebalance
    if rebalance is None:
        return Text("there was no rebalance yet")
    moving = [move for move in document.moving if move.stage not in COMMITTED]
    parts: list[RenderableType] = [
        Text(headline(rebalance), style="bold"),
        _bar(rebalance),
        Text(holds_text(rebalance)),
    ]
    if state is not None:
        parts.append(_owners(state))
    if moving:
        parts.append(_moves(moving, progress))
    parts += [Text(trouble, style="yellow") for trouble in _troubles(progress)]
    kept = len(document.moving) - len(moving)
    if kept:
        parts.append(Text(f"{kept:,} sources keep their copy for the grace, or remove it", style="dim"))
    given_up = [move for move in rebalance.last if move.reason and move.stage not in COMMITTED]
    parts += [Text(f"bucket {move.bucket}: {_end(move)}", style="red") for move in given_up]
    return Group(*parts)


def headline(rebalance: RebalanceDocument) -> str:
    """One line: how far, how fast, until when."""
    done = [f"{rebalance.committed:,} of {rebalance.moves:,} buckets"]
    done += [f"{rebalance.failed:,} failed"] if rebalance.failed else []
    done += [f"{rebalance.cancelled:,} cancelled"] if rebalance.cancelled else []
    rate = f", {rebalance.users_per_s:,.0f} users/s" if rebalance.users_per_s else ""
    left = f", {duration_text(rebalance.eta_s)} to go" if rebalance.eta_s is not None else ""
    return (
        f"{rebalance.status}: {', '.join(done)}, {rebalance.users_moved:,} of {rebalance.users:,} users{rate}{left}; "
        f"fullest ÷ fair part {rebalance.before.imbalance:.3f} → {rebalance.after.imbalance:.3f}"
    )


def holds_text(rebalance: RebalanceDocument) -> str:
    """For how long writes were held."""
    holds = rebalance.holds
    if not holds.count:
        return "no write was held yet"
    figures = f"{holds.p50_ms:.0f} ms (p50), {holds.p99_ms:.0f} ms (p99), {holds.max_ms:.0f} ms at most"
    return f"writes to a bucket were held for {figures}"


def _bar(rebalance: RebalanceDocument) -> RenderableType:
    table = Table.grid()
    table.add_row(ProgressBar(total=max(rebalance.moves, 1), completed=rebalance.committed, width=60))
    return table


def _owners(state: ControlState) -> Text:
    """How many buckets each shard owns now."""
    owned = counts(state.map) if state.map is not None else {}
    return Text("   ".join(f"{shard} {owned[shard]:,}" for shard in sorted(owned, key=shard_order)), style="cyan")


def _end(move: MoveDocument) -> str:
    return move.stage if move.reason == move.stage else f"{move.stage}: {move.reason}"


def _moves(moving: Sequence[MoveDocument], progress: Sequence[MoveProgress]) -> Table:
    known = {each.move: each for each in progress}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("bucket", "from", "to", "stage", "for", "rows", "rows/s", "fences"):
        table.add_column(column, justify="left" if column in ("from", "to", "stage") else "right")
    now = datetime.now(UTC)
    for move in moving[:MOVES_SHOWN]:
        at_work = known.get(str(move.id))
        rows = f"{at_work.rows:,} of {at_work.rows_total:,}" if at_work and at_work.rows_total else "–"
        rate = f"{at_work.rows_per_s:,.0f}" if at_work and at_work.rows_per_s else "–"
        since = f"{max((now - move.since).total_seconds(), 0):.1f} s"
        stage = Text(move.stage, style=STAGE_COLOURS.get(move.stage, ""))
        table.add_row(str(move.bucket), move.source, move.target, stage, since, rows, rate, str(move.holds))
    return table


def _troubles(progress: Sequence[MoveProgress]) -> list[str]:
    """Why moves wait, each reason once: their steps are tried again."""
    waiting: dict[str, list[int]] = {}
    for move in progress:
        if move.trouble is not None:
            waiting.setdefault(f"{move.source} → {move.target}: {move.trouble}", []).append(move.bucket)
    return [f"{why}; tried again for bucket {write_buckets(buckets)}" for why, buckets in waiting.items()]


def show_status(document: RebalanceStatusDocument, progress: Sequence[MoveProgress]) -> None:
    """The same picture once, on standard output."""
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(picture(document, progress))
