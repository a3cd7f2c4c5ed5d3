"""What a benchmark says, where and when it was measured: a JSON file for machines, a table for people."""

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


class Report(Struct, frozen=True):
    """What a benchmark measured. `facts`: how much of what it was told to do."""

    benchmark: str
    figures: tuple[Figure, ...]
    machine: dict[str, Any]
    facts: dict[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """All of it, for a program."""
        return {
            "benchmark": self.benchmark,
            "machine": self.machine,
            "facts": self.facts,
            "figures": [_entry(figure) for figure in self.figures],
        }

    @property
    def table(self) -> Table:
        """The figures, for people."""
        table = Table(title=f"denizen bench {self.benchmark}")
        for heading in ("what", "median", "min", "max", "unit", "bar", ""):
            table.add_column(heading, justify="right" if heading in ("median", "min", "max") else "left")
        for figure in self.figures:
            mark = {True: "reached", False: "MISSED", None: ""}[figure.reached]
            numbers = [_short(number) for number in (figure.median, min(figure.runs), max(figure.runs))]
            table.add_row(figure.what, *numbers, figure.unit, figure.bar or "", mark)
        return table


def publish(name: str, figures: Sequence[Figure], facts: Mapping[str, Any] | None = None) -> Report:
    """Write `bench-results/<name>.json`; what it says."""
    report = Report(name, tuple(figures), machine(), msgspec.to_builtins(dict(facts or {})))
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{name}.json"
    path.write_text(json.dumps(report.document, indent=2, ensure_ascii=False) + "\n")
    return report


def _entry(figure: Figure) -> dict[str, Any]:
    told = ("what", "unit", "median", "runs", "bar", "reached")
    return {name: getattr(figure, name) for name in told}


def _short(number: float) -> str:
    if number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.2f}"
