"""A process is killed or stopped while a move is at a stage, under load: the move ends by itself, nothing is lost.

Here each fault strikes at some stages, one at a time; `python -m denizen.testing.fault_matrix` runs all of them.
"""

import asyncio
from collections.abc import Iterator

import pytest

from denizen.control.state import Stage
from denizen.testing.fault_matrix import Arena, Cell, arena
from denizen.testing.faults import Fault

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def deployment() -> Iterator[Arena]:
    with arena() as running:
        yield running


@pytest.mark.parametrize("stage", [Stage.COPYING, Stage.FENCED, Stage.VERIFIED])
def test_a_killed_leader_of_the_control_plane_costs_no_client_anything(deployment: Arena, stage: Stage) -> None:
    _hold(deployment, Cell(Fault.LEADER_KILLED, stage))


@pytest.mark.parametrize("stage", [Stage.COPYING, Stage.FENCED])
def test_a_killed_source_loses_no_acknowledged_write(deployment: Arena, stage: Stage) -> None:
    _hold(deployment, Cell(Fault.SOURCE_KILLED, stage))


@pytest.mark.parametrize("stage", [Stage.COPYING, Stage.VERIFIED])
def test_a_killed_target_loses_no_acknowledged_write(deployment: Arena, stage: Stage) -> None:
    _hold(deployment, Cell(Fault.TARGET_KILLED, stage))


def test_a_gateway_that_slept_through_the_move_follows_it(deployment: Arena) -> None:
    _hold(deployment, Cell(Fault.GATEWAY_STOPPED, Stage.FENCED))


def test_a_leader_that_wakes_up_replaced_does_no_harm(deployment: Arena) -> None:
    _hold(deployment, Cell(Fault.LEADER_STOPPED, Stage.FENCED))


def _hold(deployment: Arena, cell: Cell) -> None:
    async def run() -> list[str]:
        outcome = await deployment.run(cell)
        return [*outcome.problems, *await deployment.verified()]

    assert asyncio.run(run()) == []
