"""What an import shows: a bar with rate and time left on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from denizen.bulk.imports.run import Summary

_LINE_EVERY_S = 5.0


class BarProgress:
    """For people at a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: Any = None

    def begin(self, size: int | None, summary: Summary) -> None:
        """Show the bar."""
        if summary.resumed:
            self.note(f"going on with import {summary.import_id}: {summary.rows:,} rows are done")
        self._task = self._bar.add_task("Importing", total=size, facts="")

    def advance(self, position: int, summary: Summary) -> None:
        """Move it."""
        self._bar.update(self._task, completed=position, facts=_facts(summary))

    def note(self, text: str) -> None:
        """Write above it."""
        self._bar.console.print(f"[yellow]![/] {escape(text)}", soft_wrap=True)


class LineProgress:
    """For logs and pipes: lines on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last = time.monotonic()
        self._size: int | None = None

    def begin(self, size: int | None, summary: Summary) -> None:
        """Say what an earlier run did."""
        self._size = size
        if summary.resumed and not self._quiet:
            self.note(f"going on with import {summary.import_id}: {summary.rows:,} rows are done")

    def advance(self, position: int, summary: Summary) -> None:
        """A line now and then."""
        if self._quiet or time.monotonic() - self._last < _LINE_EVERY_S:
            return
        self._last = time.monotonic()
        share = f"{100 * position / self._size:.0f} %, " if self._size else ""
        left = ""
        if self._size and position:
            left = f", about {summary.seconds * (self._size - position) / position:.0f} s left"
        self.note(f"{share}{_facts(summary)}{left}")

    def note(self, text: str) -> None:
        """One line."""
        print(f"import: {text}", file=sys.stderr, flush=True)


@contextmanager
def progress_of(*, quiet: bool) -> Iterator[BarProgress | LineProgress]:
    """The progress that fits where standard error goes."""
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield LineProgress(quiet=quiet)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[facts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield BarProgress(bar)


def show(summary: Summary, file: str) -> None:
    """The result in words."""
    console = Console(highlight=False)
    verb = "would be imported" if summary.dry_run else "imported"
    state = "[green]✓[/]" if summary.complete and not summary.rejected else "[yellow]![/]"
    parts = [f"{summary.imported:,} {verb}"]
    for word in ("updated", "unchanged", "skipped", "rejected"):
        count = getattr(summary, word)
        if count:
            parts.append(f"{count:,} {word}")
    console.print(
        f"{state} {', '.join(parts)} of {summary.rows:,} rows in {summary.seconds:.1f} s "
        f"({summary.rows_per_second:,} rows/s)",
        soft_wrap=True,
    )
    if summary.rejects:
        console.print(f"  rows that were not accepted: {escape(summary.rejects)}", soft_wrap=True)
    if not summary.complete:
        again = "" if summary.dry_run else "; the same command goes on"
        resume = f" with --resume {summary.import_id}" if again and file == "-" else ""
        console.print(f"  stopped early{again}{resume}", soft_wrap=True)


def _facts(summary: Summary) -> str:
    rejected = f", {summary.rejected:,} rejected" if summary.rejected else ""
    return f"{summary.rows:,} rows{rejected}, {summary.rows_per_second:,}/s"
