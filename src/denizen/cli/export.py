"""`denizen export`: all users to a file, which `denizen import` takes back."""

import asyncio
import os
import sys
import time
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from denizen.cli.options import DataOption, JsonOption, data_directory

app = App(
    name="export",
    help="""Write all users to a file, or to standard output (-), while the service serves.

One user a line with id, version, status and times, in a stable order; deleted users are left out. The format follows
the name: .ndjson or .csv, compressed with .gz or .zst. A file appears when it is whole, readable by its owner only.

Examples:

    denizen export people.ndjson.zst
    denizen export people.csv
    denizen export - | jq -r .email
""",
    help_format="plaintext",
)


class _Watcher:
    """A bar on a terminal, a line now and then elsewhere, nothing if it is to be quiet."""

    def __init__(self, bar: Progress | None, *, quiet: bool) -> None:
        self._bar = bar
        self._quiet = quiet
        self._began = self._last = time.monotonic()

    def begin(self, users: int) -> None:
        if self._bar is not None:
            self._bar.add_task("Exporting", total=users or None, facts="")

    def advance(self, users: int) -> None:
        now = time.monotonic()
        facts = f"{users:,} users, {users / max(now - self._began, 0.001):,.0f}/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=users, facts=facts)
        elif not self._quiet and now - self._last > 5:
            self._last = now
            print(f"export: {facts}", file=sys.stderr, flush=True)


@app.default
def export(
    file: Annotated[str, Parameter(help="The file; - for standard output.", allow_leading_hyphen=True)],
    /,
    *,
    data: DataOption = None,
    format: Annotated[
        Literal["ndjson", "csv"] | None, Parameter(help="Default: by the file's name, else ndjson.")
    ] = None,
    with_password_hashes: Annotated[
        bool,
        Parameter(help="Also write the hashes of passwords: whoever has the file can try to guess them.", negative=""),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Export all users."""
    from denizen.bulk.exports.run import export as run

    if json and file == "-":
        print("denizen: --json and standard output do not go together: name a file", file=sys.stderr)
        sys.exit(2)
    if with_password_hashes:
        print("denizen: the file will hold password hashes: keep it as you would keep the passwords", file=sys.stderr)
    name = file.lower().removesuffix(".gz").removesuffix(".zst")
    csv = format == "csv" or (format is None and name.endswith(".csv"))
    console = Console(stderr=True, highlight=False)
    bar = _bar(console) if console.is_terminal and not json else None
    work = run(
        data_directory(data), file, _Watcher(bar, quiet=json or file == "-"), csv=csv, passwords=with_password_hashes
    )
    try:
        if bar is None:
            summary = asyncio.run(work)
        else:
            with bar:
                summary = asyncio.run(work)
    except BrokenPipeError:  # whoever was reading has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if json:
        print(msgspec.json.encode(summary).decode())
    elif file != "-":
        rate = f"{summary.users_per_second:,} users/s"
        Console(highlight=False).print(
            f"[green]✓[/] {summary.users:,} users in {summary.seconds:.1f} s ({rate}) to {escape(file)}", soft_wrap=True
        )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
    )
