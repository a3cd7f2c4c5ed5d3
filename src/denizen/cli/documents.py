"""Printing what the API answers: JSON for programs, tables for people."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from denizen.api.erasures import CertificateDocument
from denizen.client import User

STATUS_COLOURS = {"active": "green", "suspended": "yellow", "deleted": "red"}


def print_json(document: Any) -> None:
    """One document as one line of JSON."""
    print(msgspec.json.encode(document).decode())


def print_user(user: User) -> None:
    """A user, a field a line; empty fields are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for field, value in msgspec.structs.asdict(user).items():
        if value is None or value == {}:
            continue
        if field == "status":
            table.add_row(field, f"[{STATUS_COLOURS[value]}]{value}[/]")
        else:
            table.add_row(field, escape(_text(value)))
    _console().print(table)


def print_certificate(certificate: CertificateDocument, *, json: bool) -> None:
    """The certificate of an erasure, a fact a line."""
    if json:
        print_json(certificate)
        return
    facts = msgspec.structs.asdict(certificate)
    print_table(("certificate of erasure", ""), [(field.replace("_", " "), value) for field, value in facts.items()])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under columns."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "when"))
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row))
    _console().print(table)


def _console() -> Console:
    """On the terminal as wide as it is, in a pipe wide enough that nothing is folded."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def _text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
        case list():
            return ", ".join(map(_text, value))
        case dict():
            return msgspec.json.encode(value).decode()
        case msgspec.Struct():
            return " ".join(part for part in msgspec.structs.astuple(value) if part)
    return str(value)
