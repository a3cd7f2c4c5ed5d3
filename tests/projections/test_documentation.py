"""The examples of docs/projections.md run as they stand there."""

import re
from pathlib import Path

from denizen.projections.catalogue import SHIPPED

PAGE = (Path(__file__).parents[2] / "docs" / "projections.md").read_text()


def test_the_example_projection_and_its_test_run_as_pasted() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"__name__": "pasted"}
    exec(compile("\n".join(blocks), "docs/projections.md", "exec"), names)  # noqa: S102
    assert len(names["model"].rows()) == 1  # type: ignore[attr-defined]


def test_the_page_lists_every_read_model_and_its_tables() -> None:
    for projection in SHIPPED:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {projection.name} |")]
        assert re.findall(r"`(\w+)`", row) == [table.name for table in projection.tables]


def test_every_fault_is_held_by_a_test_that_exists() -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 25
    for path, test in named:
        assert re.search(rf"def {test}\(", (root / path).read_text()), f"{path}::{test}"
