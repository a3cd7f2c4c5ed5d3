"""`denizen export`: all users to a file or to standard output."""

import asyncio
import sys
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from denizen.cli.options import DataOption, JsonOption, data_directory, kind_of

app = App(
    name="export",
    help="""Write all users to a file, or to standard output (-), while the service serves.

NDJSON: one JSON object a line. CSV: a header and a row a user. The file name decides: .csv, .tsv or .tab, else NDJSON;
with .gz or .zst after it, compressed. Either can be imported again. The file appears when it is whole; only you can
read it.

Examples:

    denizen export users.ndjson.zst
    denizen export users.csv
    denizen export - | wc -l
    denizen export everything.ndjson.gz --with-password-hashes
""",
    help_format="plaintext",
)


@app.default
def export(
    file: Annotated[str, Parameter(allow_leading_hyphen=True, help="The file; - for standard output.")],
    /,
    *,
    data: DataOption = None,
    format: Annotated[
        Literal["ndjson", "csv", "tsv"] | None, Parameter(help="Default: by the file's name, else ndjson.")
    ] = None,
    with_password_hashes: Annotated[
        bool, Parameter(negative="", help="Add the hashes of passwords. Keep such a file as you keep passwords.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Export all users."""
    from denizen.bulk.exports.formats import Csv, Ndjson
    from denizen.bulk.exports.run import export as run

    kind = format or kind_of(file)
    if kind == "ndjson":
        form: Ndjson | Csv = Ndjson(with_password_hashes=with_password_hashes)
    else:
        form = Csv(with_password_hashes=with_password_hashes, delimiter="\t" if kind == "tsv" else ",")
    if with_password_hashes and not json:
        print("export: the file will hold the hashes of passwords; keep it safe", file=sys.stderr)
    console = Console(stderr=True)
    columns = (
        TextColumn("Exporting"),
        BarColumn(),
        TextColumn("{task.completed:,} users, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=json or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None, rate=0.0)

        def advance(done: int, about: int) -> None:
            progress.update(task, completed=done, total=about, rate=progress.tasks[0].speed or 0.0)

        summary = asyncio.run(run(data_directory(data), file, form, advance))
    if json:
        print(msgspec.json.encode(summary).decode(), file=sys.stderr if file == "-" else sys.stdout)
    else:
        rate = summary.users / max(summary.seconds, 0.001)
        print(f"{summary.users:,} users in {summary.seconds:.1f} s, {rate:,.0f}/s", file=sys.stderr)
