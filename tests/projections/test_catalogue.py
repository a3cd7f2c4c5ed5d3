"""Which projections there are: one that another package adds and that does not load keeps nobody from the others."""

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from denizen.errors import BadDeployment
from denizen.projections import catalogue
from denizen.projections.catalogue import GROUP, SHIPPED


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages: one whose module is not there, one that is good."""
    entries = EntryPoints(
        [
            EntryPoint("lost", "no_such_package.plans:PLANS", GROUP),
            EntryPoint("plans", "projections.plans:PLANS", GROUP),
        ]
    )

    def found(**wanted: Any) -> EntryPoints:
        return entries.select(**wanted)

    monkeypatch.setattr(catalogue, "entry_points", found)


def test_what_does_not_load_is_left_out() -> None:
    assert catalogue.catalogue().keys() == {*(each.name for each in SHIPPED), "plans"}
    assert catalogue.projection_of("plans").name == "plans"


def test_what_does_not_load_is_named_with_its_package_and_why() -> None:
    with pytest.raises(BadDeployment, match=r"projection lost of an unknown package does not load .*no_such_package"):
        catalogue.projection_of("lost")
    with pytest.raises(BadDeployment, match="there is no projection nope; there are activity, directory, "):
        catalogue.projection_of("nope")
