"""The columns of a CSV file: which field each one is, by its name or by `--map field=column`."""

import csv
from collections.abc import Mapping, Sequence

from denizen.bulk.imports.lines import EXPORTED, FIELDS
from denizen.errors import Invalid


class BadColumnsError(Invalid):
    """The header and the mapping do not fit; the message says which name."""

    code, title = "bad_columns", "Columns not understood"


def read_header(line: bytes, delimiter: str) -> list[str]:
    """The names in the first line of a CSV file. Raises `BadColumnsError`."""
    try:
        text = line.decode()
        header = next(csv.reader([text], delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise BadColumnsError(f"the first line is no header of a CSV file in UTF-8: {error}") from None
    return [name.strip() for name in header]


def resolve(header: Sequence[str], mapping: Mapping[str, str], ignore: Sequence[str]) -> list[str | None]:
    """The field of each column, None for one to ignore. Raises `BadColumnsError`."""
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise BadColumnsError(f"the header names the column {twice!r} twice")
    for name, column in mapping.items():
        if not is_field(name):
            raise BadColumnsError(f"--map {name}={column}: {name!r} is no field; known are {', '.join(FIELDS)}")
        if column not in header:
            raise BadColumnsError(f"--map {name}={column}: no column {column!r}; there are {', '.join(header)}")
    for column in ignore:
        if column not in header:
            raise BadColumnsError(f"--ignore {column}: no such column; there are {', '.join(header)}")
    by_column = {column: name for name, column in mapping.items()}
    for name, column in mapping.items():
        if by_column[column] != name:
            raise BadColumnsError(f"--map {name}={column}: the column is {by_column[column]!r} already")
    fields = [by_column.get(column, None if column in ignore else column) for column in header]
    given = [field for field in fields if field is not None]
    if unknown := [field for field in given if not is_field(field) and field not in EXPORTED]:
        raise _no_fields(header, unknown)
    if len(set(given)) != len(given):
        twice = next(field for field in given if given.count(field) > 1)
        raise BadColumnsError(f"two columns are the field {twice!r}")
    return fields


def _no_fields(header: Sequence[str], unknown: Sequence[str]) -> BadColumnsError:
    first = unknown[0]
    if len(header) == 1 and (sign := next((sign for sign in ";,\t|" if sign in first), None)):
        option = "tab" if sign == "\t" else f"'{sign}'"
        return BadColumnsError(
            f"the header is one column, {first!r}: name what is between the columns: --delimiter {option}"
        )
    names = ", ".join(map(repr, unknown))
    what = f"the columns {names} are no fields; map each"
    if len(unknown) == 1:
        what = f"the column {names} is no field; map it"
    guess = next((field for field in FIELDS if _bare(field) == _bare(first) and field not in header), "FIELD")
    return BadColumnsError(
        f"{what} (--map '{guess}={first}') or leave it out (--ignore '{first}')."
        f" Fields: {', '.join(FIELDS)}, attributes.NAME"
    )


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def is_field(name: str) -> bool:
    """Whether a column can have this name."""
    return name in FIELDS or (name.startswith("attributes.") and len(name) > len("attributes."))
