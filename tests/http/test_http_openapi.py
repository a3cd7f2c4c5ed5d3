"""The description: complete, true to what the gateway does, and the same as what is published in docs/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from http_api import Api
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks, not_a_server_error

from denizen import errors, limits
from denizen.api import shapes
from denizen.http.openapi import description, description_json
from denizen.http.problems import CATALOGUE
from denizen.http.reference import reference
from denizen.http.route import Route
from denizen.http.routes import ROUTES
from denizen.testing.http import RunningServer
from denizen.users.commands import UserPatch
from denizen.users.documents import RequestDocument
from denizen.users.public import PublicUser

load_all_checks()
status_code_conformance, content_type_conformance, response_schema_conformance, negative_data_rejection = (
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
    )
)

DOCS = Path(__file__).parents[2] / "docs"


def test_what_is_published_is_what_is_made() -> None:
    assert (DOCS / "openapi.json").read_bytes() == description_json(), "run python -m denizen.http.openapi --write docs"
    assert (DOCS / "api.md").read_text() == reference(), "run python -m denizen.http.openapi --write docs"


async def test_the_gateway_serves_its_description(api: Api) -> None:
    assert (await api.with_key(None)("GET", "/v1/openapi.json")).json == description()


def test_every_link_of_the_reference_leads_somewhere() -> None:
    text = reference()
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_names_and_paths_are_unique_and_every_problem_is_in_the_catalogue() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    for route in ROUTES:
        assert {error.code for error in route.all_problems()} <= set(CATALOGUE), route.name


def test_every_error_that_a_client_may_see_is_in_the_catalogue() -> None:
    """Those of the command line and of starting a deployment never reach a client."""
    seen = {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.DenizenError)
    }
    assert seen - {"bad_configuration", "bad_deployment"} <= set(CATALOGUE)


def test_every_rule_of_an_invalid_is_in_the_reference() -> None:
    package = Path(errors.__file__).parent
    sources = [path.read_text() for part in ("http", "service", "operators") for path in (package / part).rglob("*.py")]
    rules = {"missing_field"} | {rule for source in sources for rule in re.findall(r'\brule="(\w+)"', source)}
    page = reference()
    assert not [rule for rule in rules if f"| `{rule}` |" not in page]


def test_the_published_documents_have_the_fields_that_the_domain_takes() -> None:
    assert shapes.NewUser.__struct_fields__ == RequestDocument.__struct_fields__
    assert shapes.UserChanges.__struct_fields__ == UserPatch.__struct_fields__
    assert set(PublicUser.__struct_fields__) <= set(shapes.UserDocument.__struct_fields__)


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.path], ids=lambda route: route.name)
async def test_a_parameter_with_a_separator_in_it_gets_a_described_answer(api: Api, route: Route) -> None:
    answer = await api(route.method, re.sub(r"\{\w+\}", "a%3Ab", route.path), None if route.body is None else {})
    assert str(answer.status) in description()["paths"][route.path][route.method.lower()]["responses"]


schema = schemathesis.openapi.from_dict(json.loads(description_json()))
SAME = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# A batch answers for each item; a verification tells nobody which users there are.
ANSWERS_ANYWAY = {"create_users", "verify_password", "verify_password_by_login_name"}
LONGEST_S = limits.changes_wait_s + 10  # a long poll may be asked for
OPERATIONS = sorted(route.name for route in ROUTES if route.name != "openapi")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_the_gateway_does_what_its_description_says(server: RunningServer, name: str, mode: GenerationMode) -> None:
    """Requests that fit the description and requests that do not: no server error, and always a described answer.

    What fits may still be refused, by a rule that no schema can say (422), but not as malformed; what does not fit is
    refused.
    """
    operation = schema.find_operation_by_id(name)
    refuses = mode is GenerationMode.NEGATIVE and name not in ANSWERS_ANYWAY
    checks = [*SAME, negative_data_rejection] if refuses else SAME

    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(mode))
    def check(case: Any) -> None:
        assume([] not in (case.query or {}).values())  # a parameter without a value is not even sent
        headers = {"Authorization": f"Bearer {server.admin_key}"}
        response = case.call(base_url=server.url, headers=headers, timeout=LONGEST_S)
        case.validate_response(response, checks=checks)

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # there is nothing about this operation that could be wrong
