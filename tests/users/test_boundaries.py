"""The domain stands alone: it imports nothing else of ours, and says nothing that others say differently."""

import ast
import pickle
from pathlib import Path

import denizen.limits
import denizen.users
from denizen.users import limits
from denizen.users.rejections import CODES, Rejected

SOURCES = sorted(Path(denizen.users.__file__).parent.glob("*.py"))


def test_the_domain_imports_nothing_else_of_ours() -> None:
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, source
                assert node.level == 1 or not (node.module or "").startswith("denizen"), source
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("denizen") for name in node.names), source


def test_a_limit_that_the_service_names_too_has_the_same_value_there() -> None:
    shared = {name for name in vars(limits) if name.endswith(("_max", "_min"))} & vars(denizen.limits).keys()
    assert {name: getattr(limits, name) for name in shared} == {name: getattr(denizen.limits, name) for name in shared}


def test_every_code_is_used_and_every_used_code_is_declared() -> None:
    used = {
        node.value
        for source in SOURCES
        if source.name != "rejections.py"
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and node.value in CODES
    }
    assert used == set(CODES)


def test_a_rejection_can_cross_processes() -> None:
    back = pickle.loads(pickle.dumps(Rejected("email_invalid", "email", "not an email")))  # noqa: S301  # our own bytes
    assert (back.code, back.field, back.detail, str(back)) == ("email_invalid", "email", "not an email", "not an email")
