"""`denizen bench`: the same figures for people, for programs and in the file."""

import json
import subprocess
import sys
from pathlib import Path

from denizen.bench.report import Figure, Report, machine


def test_figures_are_printed_as_json_and_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "denizen", "bench", "sealing", "--rounds", "1", "--seconds", "1", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "bench-results" / "sealing.json").read_text())
    figures = {figure["what"]: figure for figure in printed["figures"]}
    assert all(len(figure["runs"]) == 1 for figure in figures.values())
    assert {figure["bar"] for figure in figures.values()} > {None}
    assert all((figure["reached"] is None) == (figure["bar"] is None) for figure in figures.values())


def test_a_bar_is_reached_by_the_median() -> None:
    report = Report(
        "any",
        (
            Figure("fast enough", (0.5, 0.9, 1.0), "×", "≥ 0.9", at_least=0.9),
            Figure("too late", (9.0, 11.0, 12.0), "ms", "≤ 10", at_most=10),
            Figure("as it is", (1.0,), "/s"),
        ),
        machine(),
        {},
    )
    assert [figure["reached"] for figure in report.document["figures"]] == [True, False, None]
    assert list(report.table.columns[-1].cells) == ["reached", "MISSED", ""]
