"""What the view of a rebalance says of moves that wait."""

import io
from uuid import UUID

from msgspec.structs import replace
from rich.console import Console

from control.states import a_state
from denizen.cli.rebalance_view import picture
from denizen.control.commands import StartRebalance
from denizen.control.machine import decide
from denizen.control.planner import plan_moves
from denizen.control.wire import MoveProgress
from denizen.operators.views import status_document
from denizen.sharding.ids import Bucket, ShardId


def test_why_moves_wait_is_said_once_for_all_of_them() -> None:
    s1, s2 = ShardId("s1"), ShardId("s2")
    plan = plan_moves(a_state(2), {}, [(Bucket(number), s2) for number in (3, 4, 9)])
    state, _ = decide(a_state(2), StartRebalance(at_ms=1, plan=plan))
    waiting = MoveProgress(
        move=str(UUID(int=1)), stage="copying", source=s1, target=s2, bucket=3, trouble="shard s2 does not answer"
    )
    progress = [waiting, replace(waiting, bucket=4), replace(waiting, bucket=9, trouble=None)]
    console = Console(file=io.StringIO(), width=160)
    console.print(picture(status_document(state, 2), progress, state))
    assert isinstance(console.file, io.StringIO)
    assert "s1 → s2: shard s2 does not answer; tried again for bucket 3-4" in console.file.getvalue()
