"""What a benchmark says: a table for people, a JSON file for machines, and where and when it was measured."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

DIRECTORY = Path("bench-results")


class Figure(Struct, frozen=True):
    """One measured quantity over several runs. `bar` is what it must reach, if it must."""

    what: str
    runs: tuple[float, ...]
    unit: str
    bar: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """The median of the runs."""
        return median(self.runs)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.median >= self.at_least
        below = self.at_most is None or self.median <= self.at_most
        return above and below


def ratio(what: str, ours: Sequence[float], rivals: Sequence[float], at_least: float | None = None) -> Figure:
    """The ratio of two rates, run by run, for the two were measured in turn."""
    runs = tuple(our / rival for our, rival in zip(ours, rivals, strict=True))
    return Figure(what, runs, "×", None if at_least is None else f"≥ {at_least}", at_least)


def percentile(values: Sequence[float], percent: float) -> float:
    """What `percent` of the values do not exceed; not a number if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else math.nan


def machine() -> dict[str, Any]:
    """Where this was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def publish(name: str, figures: Sequence[Figure], facts: Mapping[str, Any] | None = None) -> Path:
    """Print the table and write `bench-results/<name>.json`; the path of that file."""
    table = Table(title=f"denizen bench {name}")
    for heading in ("what", "median", "min", "max", "unit", "bar", ""):
        table.add_column(heading, justify="right" if heading in ("median", "min", "max") else "left")
    for figure in figures:
        mark = {True: "reached", False: "MISSED", None: ""}[figure.reached]
        numbers = [_short(number) for number in (figure.median, min(figure.runs), max(figure.runs))]
        table.add_row(figure.what, *numbers, figure.unit, figure.bar or "", mark)
    Console().print(table)
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{name}.json"
    document = {
        "benchmark": name,
        "machine": machine(),
        "facts": msgspec.to_builtins(dict(facts or {})),
        "figures": [
            {"what": figure.what, "unit": figure.unit, "median": figure.median, "runs": figure.runs, "bar": figure.bar}
            for figure in figures
        ],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return path


def _short(number: float) -> str:
    if number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.2f}"
