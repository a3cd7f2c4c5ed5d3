"""Plans are kept to be run by their id, but not for ever."""

import os
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from control.states import a_state
from denizen.cli.rebalance import _kept
from denizen.control.planner import plan_moves
from denizen.limits import plans_kept_max
from denizen.operators.plans import plan_document
from denizen.sharding.ids import Bucket, ShardId


def test_the_newest_plans_are_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    plan = plan_document(plan_moves(a_state(2), {}, [(Bucket(0), ShardId("s2"))]))
    for number in range(plans_kept_max + 3):
        os.utime(_kept(tmp_path, replace(plan, id=UUID(int=number))), (number, number))
    kept = {path.stem for path in (tmp_path / "run" / "plans").iterdir()}
    assert kept == {str(UUID(int=number)) for number in range(3, plans_kept_max + 3)}
