"""Deployments as people run them: real processes, looked at from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from denizen.testing.deployment import RunningDeployment, throwaway_deployment, write_configuration
from denizen.testing.postgres import reachable_directory


@pytest.fixture(scope="module")
def running() -> Iterator[RunningDeployment]:
    """A deployment of two shards, shared by a module's tests, each of which leaves it running."""
    with throwaway_deployment(shards=2) as deployment:
        yield deployment


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a small configuration in `data`, for a deployment of the test's own."""
    with reachable_directory() as path:
        write_configuration(path)
        yield path
