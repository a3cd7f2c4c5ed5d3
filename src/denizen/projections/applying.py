"""Applying a batch: what it changes in all projections is one statement, so one transaction.

A statement and its commit cost as much as a dozen rows do, and while little is waiting a batch is small: so all
projections share them. What the database refuses, or what takes several steps, each projection does alone.
"""

from collections.abc import Sequence

import asyncpg
from msgspec import Struct, field

from denizen.events.lanes import BROKEN, PASSING
from denizen.projections.arrivals import Arrivals
from denizen.projections.runner import Fenced, Runner, Step
from denizen.projections.writing import apply_at_once


class Applied(Struct):
    """What became of a batch: how many events were new to each runner, and why some could not take it."""

    new: dict[Runner, int] = field(default_factory=dict)
    failed: dict[Runner, asyncpg.PostgresError] = field(default_factory=dict)


async def apply_together(connection: asyncpg.Connection, runners: Sequence[Runner], arrivals: Arrivals) -> Applied:
    """Apply what is new to each of the runners, whose connection this is.

    Raises what is about all of them: `Fenced`, `BROKEN`, `PASSING`; then open others. What the database said about one
    alone, such as that a table is gone, is in `failed`.
    """
    applied = Applied()
    steps = []
    for runner in runners:
        try:
            steps.append(await runner.prepare(arrivals))
        except (*BROKEN, *PASSING):
            raise
        except asyncpg.PostgresError as error:
            applied.failed[runner] = error
    for step in await _not_at_once(connection, steps):
        try:
            await step.runner.write(step)
        except (*BROKEN, *PASSING):
            raise
        except asyncpg.PostgresError as error:
            applied.failed[step.runner] = error
    applied.new = {step.runner: step.events for step in steps if step.runner not in applied.failed}
    return applied


async def _not_at_once(connection: asyncpg.Connection, steps: Sequence[Step]) -> list[Step]:
    """Write the steps that one statement can do, and answer those that are left: all, if the database refuses it.

    Those of versions that are behind the first one, as a new one is for a moment, are left too.
    """
    plain = [step for step in steps if step.plain]
    together = [step for step in plain if step.advance.ends == plain[0].advance.ends]
    if len(together) < 2:
        return list(steps)
    try:
        await apply_at_once(connection, [(step.advance, step.changes) for step in together])
    except (Fenced, *BROKEN, *PASSING):
        raise
    except asyncpg.PostgresError:
        return list(steps)
    for step in together:
        step.runner.written(step)
    written = {step.runner for step in together}
    return [step for step in steps if step.runner not in written]
