"""Each fault at each stage of a move, under load, with everything checked afterwards; and the table of it.

    python -m denizen.testing.fault_matrix --write docs      # all cells, writes docs/fault-matrix.md; some minutes

One deployment of two shards, as `denizen up` runs it. For a cell some buckets are moved, the fault strikes while one of
them is at the stage, and then nobody helps: the move must end by itself. Meanwhile clients sign up, change, read and
delete. Then every acknowledged write must be there, no server may hold anything that is not its own, and for faults
that are none of the data plane's no client may have met an error.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Final

from msgspec import Struct
from rich.console import Console

from denizen.api.operations import SettingsChanges
from denizen.control.state import RebalanceStatus, Stage
from denizen.operators.desk import Desk
from denizen.operators.opening import desk_of
from denizen.sharding.ids import ShardId
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.faults import Fault, Strike, eventually, strike, under_way
from denizen.testing.leftovers import leftovers
from denizen.testing.mixed_load import MixedLoad, run_denizen
from denizen.testing.slowness import slowed

CONFIGURATION: Final = '[postgres]\nmemory = "512MB"\n[control]\nvoters = 3\n'
CLIENTS: Final = 6
BUCKETS_MOVED: Final = 8
TRIES_MAX: Final = 15
ENDS_WITHIN_S: Final = 60.0
STAGES: Final = (
    Stage.PLANNED,
    Stage.COPYING,
    Stage.TAILING,
    Stage.FENCED,
    Stage.VERIFIED,
    Stage.COMMITTED,
    Stage.CLEANING,
)
OF_THE_DATA_PLANE: Final = (Fault.SOURCE_KILLED, Fault.TARGET_KILLED, Fault.GATEWAY_STOPPED)
"""Faults for which clients may have to repeat a request."""

_QUICK: Final = SettingsChanges(grace_s=0, copy_events_per_s=0, clean_rows_per_s=0)
_LASTING: Final = {
    Stage.COPYING: SettingsChanges(grace_s=0, copy_events_per_s=20, clean_rows_per_s=0),
    Stage.COMMITTED: SettingsChanges(grace_s=2, copy_events_per_s=0, clean_rows_per_s=0),
    Stage.CLEANING: SettingsChanges(grace_s=0, copy_events_per_s=0, clean_rows_per_s=20),
}


class Cell(Struct, frozen=True):
    """One fault at one stage."""

    fault: Fault
    stage: Stage

    def __str__(self) -> str:
        return f"{self.fault}, {self.stage}"


CELLS: Final = tuple(Cell(fault, stage) for fault, stage in product(Fault, STAGES))


class Outcome(Struct, frozen=True):
    """What became of a cell. `ended_s`: from the strike until nothing was under way any more."""

    cell: Cell
    tries: int
    ended_s: float
    moves: int
    given_up: int
    held_ms_max: float
    acknowledged: int
    repeated: int
    problems: tuple[str, ...]


class Arena:
    """A deployment in which cell after cell is run."""

    def __init__(self, running: RunningDeployment) -> None:
        self._running = running
        self._desk: Desk = desk_of(running.deployment)
        self._random = random.Random(7)  # noqa: S311 - which buckets move

    async def run(self, cell: Cell) -> Outcome:
        """One cell; never raises for what the deployment does wrong."""
        load, done = MixedLoad(self._running.url, self._running.admin_key, pause_s=0.005), False
        working = asyncio.create_task(load.work(CLIENTS, lambda: done))
        try:
            await self._desk.change_settings(_LASTING.get(cell.stage, _QUICK))
            found, tries = await self._struck(cell)
            await eventually(lambda: self._desk.change_settings(_QUICK))
            problems = await self._ended(cell) if found else [f"{cell}: it was never struck in {tries} tries"]
            ended_s = time.monotonic() - found.at if found else 0.0
        finally:
            done = True
            await working
        verdict = await load.verdict()
        if cell.fault in OF_THE_DATA_PLANE:
            problems += [problem for problem in verdict.problems if "a client met" not in problem]
        else:
            problems += verdict.problems
        state = await self._desk.control.state()
        problems += await leftovers(self._running.deployment, state.map) if state.map else ["there is no map"]
        rebalance = state.rebalance
        return Outcome(
            cell,
            tries,
            round(ended_s, 1),
            rebalance.committed if rebalance else 0,
            sum(move.holds for move in state.ended if rebalance and move.rebalance == rebalance.id),
            round(max(rebalance.holds_us, default=0) / 1e3, 1) if rebalance else 0.0,
            load.acknowledged,
            load.repeated,
            tuple(problems),
        )

    async def verified(self) -> list[str]:
        """What `denizen verify` finds wrong."""
        done = await run_denizen("verify", "--data", str(self._running.data), "--json")
        return [] if done.code == 0 else [f"denizen verify: {done.out or done.error}"]

    async def _struck(self, cell: Cell) -> tuple[Strike | None, int]:
        """Move some buckets to and fro until the fault strikes one at the stage."""
        async with slowed(self._running.deployment, cell.stage):
            for tries in range(1, TRIES_MAX + 1):
                await self._begin()
                try:
                    found = await strike(self._running.deployment, self._desk.control, cell.fault, cell.stage)
                except TimeoutError:
                    found = None
                if found is not None:
                    return found, tries
                await self._ended(cell)
        return None, TRIES_MAX

    async def _begin(self) -> None:
        """Some buckets of the shard that has more of them go to the other."""
        shards = await eventually(self._desk.shards)
        source, target = sorted(shards, key=lambda shard: -shard.buckets)[:2]
        owned = [each.bucket for each in await eventually(lambda: self._desk.buckets(source.id))]
        buckets = self._random.sample(owned, BUCKETS_MOVED)

        async def start() -> None:
            await self._desk.run(await self._desk.plan_of_moves(buckets, ShardId(target.id)))

        await eventually(start)

    async def _ended(self, cell: Cell) -> list[str]:
        """Wait until nothing is under way; what is wrong about how it ended."""
        deadline = time.monotonic() + ENDS_WITHIN_S
        while under_way(state := await eventually(self._desk.control.state)):
            if time.monotonic() > deadline:
                stages = ", ".join(sorted(f"{move.bucket} {move.stage} {move.reason}" for move in state.moves.values()))
                return [f"{cell}: after {ENDS_WITHIN_S:.0f} s there is still under way: {stages}"]
            await asyncio.sleep(0.05)
        rebalance = state.rebalance
        if rebalance is None or rebalance.status is not RebalanceStatus.DONE or rebalance.failed:
            return [f"{cell}: the rebalance did not come to its end: {rebalance and rebalance.status}"]
        return []


@contextmanager
def arena() -> Iterator[Arena]:
    """An arena of two shards."""
    with throwaway_deployment(shards=2, configuration=CONFIGURATION) as running:
        yield Arena(running)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The outcomes as a table in Markdown."""
    yield "| fault | stage | tries | moves committed | fences given up | writes held at most | ended after | "
    yield "acknowledged | repeated | lost or left |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    for each in outcomes:
        lost = "; ".join(each.problems).replace("|", "/") or "nothing"
        yield (
            f"| {each.cell.fault} | {each.cell.stage} | {each.tries} | {each.moves} | {each.given_up} | "
            f"{each.held_ms_max:,.0f} ms | {each.ended_s:.1f} s | {each.acknowledged:,} | {each.repeated} | {lost} |\n"
        )


PREFACE: Final = f"""# Faults at each stage of a move

Made by `python -m denizen.testing.fault_matrix --write docs`: one deployment of two shards as `denizen up` runs it,
with three control nodes, on one machine. In each row {BUCKETS_MOVED} buckets move while {CLIENTS} clients sign up,
change names, read, delete and write batches, and the fault strikes the moment one of the moves is at the stage.
"Tries" counts how often it came too late before, for stages last milliseconds; "fenced" and "verified" are made to last
0.3 s while they are waited for. Then nobody helps.

A row holds if every move ends by itself, every acknowledged write is there, no server keeps anything that is not its
own, and no client was refused anything; if it is the control plane that fails, no client may have met an error either.
"Repeated" counts requests that clients sent again under their idempotency key, while a server of their data was dead.

"""


def main(arguments: list[str]) -> int:
    """Run all cells; write the page into the directory behind `--write`, else print it."""
    console = Console(stderr=True, highlight=False)
    outcomes: list[Outcome] = []
    with arena() as running:

        async def run() -> list[str]:
            for cell in CELLS:
                outcomes.append(await running.run(cell))
                console.print(f"{cell}: {json.dumps(list(outcomes[-1].problems)) if outcomes[-1].problems else 'held'}")
            return await running.verified()

        wrong = asyncio.run(run())
    held = sum(not each.problems for each in outcomes)
    end = (
        f"\n{held} of {len(outcomes)} rows hold. `denizen verify` in the end: {'; '.join(wrong) or 'no differences'}.\n"
    )
    page = PREFACE + "".join(table(outcomes)) + end
    if len(arguments) == 2 and arguments[0] == "--write":
        (Path(arguments[1]) / "fault-matrix.md").write_text(page)
    else:
        print(page)
    return 0 if held == len(outcomes) and not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
