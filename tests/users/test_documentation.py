"""docs/users.md says what the code does."""

import doctest
import re
from pathlib import Path

import pytest

from denizen.users import events, limits
from denizen.users.commands import Registration
from denizen.users.documents import ImportDocument, RequestDocument
from denizen.users.login_names import normalise_email, normalise_phone, normalise_username
from denizen.users.passwords import hash_password
from denizen.users.rejections import CODES

PAGE = (Path(__file__).parents[2] / "docs" / "users.md").read_text()


def rows(heading: str, header: str) -> list[list[str]]:
    """The cells of the table under this heading whose header starts with this word, without backticks."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = section.split(f"| {header} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_examples_give_what_the_page_shows() -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/users.md", None, None)
    outcome = doctest.DocTestRunner().run(example)
    assert outcome.attempted > 15
    assert outcome.failed == 0


def test_the_page_lists_all_fields() -> None:
    documented = [words(row[0])[0] for row in rows("Fields", "field")]
    assert sorted(documented) == sorted({*ImportDocument.__struct_fields__, *RequestDocument.__struct_fields__})
    assert set(documented) - {"password"} == set(Registration.__struct_fields__)


@pytest.mark.parametrize(("given", "value"), [[words(cell)[0] for cell in row] for row in rows("Login names", "given")])
def test_the_names_of_the_page_have_the_normal_form_it_shows(given: str, value: str) -> None:
    if "@" in value:
        assert normalise_email(given) == value
    elif given.startswith("+"):
        assert normalise_phone(given) == value
    else:
        assert normalise_username(given) == value


def test_the_page_lists_all_events_with_their_fields() -> None:
    documented = {words(row[0])[0]: words(row[1]) for row in rows("Events", "event")}
    kinds = [kind for kind in vars(events).values() if getattr(kind, "__module__", "") == events.__name__]
    assert documented == {kind.__name__: list(kind.__struct_fields__) for kind in kinds}


def test_the_page_lists_all_codes() -> None:
    assert {words(row[0])[0]: row[1] for row in rows("Codes of refusals", "code")} == dict(CODES)


def test_the_page_names_the_limits_and_parameters_in_use() -> None:
    for number in (
        limits.email_chars_max,
        limits.email_local_bytes_max,
        limits.username_chars_max,
        limits.name_part_chars_max,
        limits.locale_chars_max,
        limits.picture_url_chars_max,
        limits.attributes_bytes_max,
        limits.attributes_depth_max,
        limits.password_chars_min,
        limits.password_chars_max,
    ):
        assert re.search(rf"\b{number:,}\b", PAGE)
    assert f"(`{hash_password('correct horse').split('$')[3]}`)" in PAGE
