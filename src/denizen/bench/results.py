"""How benchmarks tell their results: a table for people, a JSON file in `bench-results/` for programs."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

Cell = str
DIRECTORY = Path("bench-results")


def publish(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], facts: dict[str, Any]
) -> None:
    """Print the table and write `bench-results/<name>.json` with the facts, the machine and the time."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    DIRECTORY.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    document = {"name": name, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, **facts}
    path = DIRECTORY / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
