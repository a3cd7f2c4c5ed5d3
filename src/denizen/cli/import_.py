"""`denizen import`: a file of people into the deployment, by the bulk path."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from denizen import limits
from denizen.cli.options import DataOption, JsonOption, data_directory, kind_of

app = App(
    name="import",
    help="""Import people from a file, or from standard input (-), while the service serves.

NDJSON: one JSON object a line, with the fields of a registration and maybe `password_hash`. CSV: a header and a column
for each field; `--map email=E-Mail` names a column that is called otherwise. Both plain, gzip or zstd.

Rows that are not valid are written with line number and reason to FILE.rejected.ndjson; the others go on. After an
interruption the same command goes on where it stopped. Exit code: 0 if every row was accepted or skipped, 1 if some
were rejected or it stopped early, 2 if it was called wrongly.

Examples:

    denizen import people.ndjson
    denizen import people.csv.gz --map email=E-Mail --map name.given=Vorname --ignore Notes
    zstd -dc old.ndjson.zst | denizen import - --on-conflict update
    denizen import people.ndjson --dry-run
""",
    help_format="plaintext",
)


@app.default
def import_(
    file: Annotated[str, Parameter(allow_leading_hyphen=True, help="The file; - for standard input.")],
    /,
    *,
    data: DataOption = None,
    format: Annotated[
        Literal["ndjson", "csv", "tsv"] | None, Parameter(help="Default: by the file's name, else ndjson.")
    ] = None,
    map: Annotated[list[str] | None, Parameter(help="FIELD=COLUMN, for CSV; may be repeated.", negative="")] = None,
    ignore: Annotated[
        list[str] | None, Parameter(help="A CSV column to leave out; may be repeated.", negative="")
    ] = None,
    delimiter: Annotated[str | None, Parameter(help="Between CSV columns. Default: a comma; a tab for tsv.")] = None,
    on_conflict: Annotated[
        Literal["skip", "update", "fail"], Parameter(help="What to do with a row whose login name a user has.")
    ] = "skip",
    dry_run: Annotated[bool, Parameter(help="Check everything, write nothing.", negative="")] = False,
    rejects: Annotated[Path | None, Parameter(help="File for rejected rows. Default: FILE.rejected.ndjson.")] = None,
    resume: Annotated[str | None, Parameter(help="Go on with this import; needed only for standard input.")] = None,
    fresh: Annotated[
        bool, Parameter(help="Begin a new import even if one of this file can go on.", negative="")
    ] = False,
    workers: Annotated[
        int | None, Parameter(help="Worker processes. Default: one a core, at most 4.", validator=Number(gte=1, lte=64))
    ] = None,
    json: JsonOption = False,
) -> None:
    """Import people."""
    from denizen.bulk.imports.columns import BadColumnsError
    from denizen.bulk.imports.rejects import BadRejectsError
    from denizen.bulk.imports.run import Import, Options
    from denizen.cli.import_progress import progress_of, show

    kind = format or kind_of(file)
    if kind == "ndjson" and (map or ignore or delimiter is not None):
        _wrong("--map, --ignore and --delimiter are for CSV; name the format of the file (--format csv)")
    options = Options(
        input=file,
        data=data_directory(data),
        csv=kind != "ndjson",
        delimiter=_delimiter(delimiter, kind),
        mapping=_mapping(map or []),
        ignore=tuple(ignore or ()),
        on_conflict=on_conflict,
        dry_run=dry_run,
        rejects=rejects,
        resume=resume,
        fresh=fresh,
        workers=workers or min(os.cpu_count() or 1, limits.bulk_workers_max),
    )

    async def run() -> int:
        work = None
        try:
            with progress_of(quiet=json) as progress:
                work = Import(options, progress)
                summary = await work.run()
        finally:
            if work is not None and work.begun:
                print(msgspec.json.encode(work.summary).decode(), flush=True) if json else show(work.summary, file)
        return 0 if summary.complete and not summary.rejected else 1

    try:
        code = asyncio.run(run())
    except (BadColumnsError, BadRejectsError) as error:
        _wrong(error.detail)
    sys.exit(code)


def _delimiter(given: str | None, kind: str) -> str:
    delimiter = ("\t" if kind == "tsv" else ",") if given is None else given
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        _wrong(f"--delimiter must be one character, not {given!r}")
    return delimiter


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not equals or not field or not column:
            _wrong(f"--map {pair}: write FIELD=COLUMN, for example --map email=E-Mail")
        if field.strip() in mapping:
            _wrong(f"--map {pair}: {field.strip()!r} is mapped already; a field comes from one column")
        mapping[field.strip()] = column.strip()
    return mapping


def _wrong(message: str) -> NoReturn:
    print(f"denizen: {message}", file=sys.stderr)
    sys.exit(2)
