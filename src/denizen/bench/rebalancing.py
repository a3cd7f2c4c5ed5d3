"""A deployment grows by a shard under load: how long writes are held, what clients notice, what is moved, and how fast.

People are imported into two shards, then clients sign up, change, read and delete at a steady pace. What they wait is
taken for a while before anything moves and all the time while a third shard joins and takes its share by the public
commands. In the end the ledger, `denizen verify` and the servers' tables say whether anything is lost or left. How fast
events are copied is measured apart, between two servers with nothing else going on.
"""

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from rich.console import Console

from denizen.api.operations import MeasuredBalance, PlanDocument, SettingsChanges
from denizen.bench import moving
from denizen.bench.people import write_people
from denizen.bench.quiet import wait_until_quiet
from denizen.bench.report import Figure, Report, percentile, publish
from denizen.control.state import ControlState, RebalanceStatus
from denizen.operators.desk import Desk
from denizen.operators.opening import desk_of
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.faults import eventually
from denizen.testing.leftovers import leftovers
from denizen.testing.mixed_load import MixedLoad, Verdict, run_denizen
from denizen.testing.postgres import throwaway_server

CLIENTS = 8
PAUSE_S = 0.05
SHARDS_BEFORE = 2
HOLD_BUCKETS_MS = (5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1_000, 2_500, 5_000)
COPIED_USERS, COPIED_BUCKETS, COPIES_AT_A_TIME = 20_000, 32, 2


class Growth(Struct, frozen=True):
    """What was seen while the deployment grew."""

    before_ms: list[float]
    while_ms: list[float]
    seconds: float
    plan: PlanDocument
    holds_ms: list[float]
    failed: int
    balance: MeasuredBalance
    verdict: Verdict
    errors: int
    problems: list[str]


def run(*, users: int = 100_000, seconds: int = 20, weight: float = 1.0, copied_users: int = COPIED_USERS) -> Report:
    """Measure and publish; the path of the figures. `weight` is that of the new shard; less moves less."""
    console = Console(stderr=True, highlight=False)
    copied = _copy_rate(copied_users)
    console.print(f"copied {copied.events:,} events at {copied.events_per_s:,}/s")
    with throwaway_deployment(shards=SHARDS_BEFORE, configuration='[postgres]\nmemory = "2GB"\n') as running:
        _import(running, users)
        console.print(f"{users:,} people are imported")
        wait_until_quiet(60.0)
        growth = asyncio.run(_grow(running, seconds, weight, console))
        verified = _denizen("verify", "--data", str(running.data))
    problems = [*growth.problems, *([] if verified.returncode == 0 else [f"denizen verify: {verified.stdout!r}"])]
    for problem in problems:
        console.print(f"[red]{problem}[/]")
    facts = {
        "users": users,
        "clients": CLIENTS,
        "weight": weight,
        "moves": len(growth.plan.moves),
        "problems": problems,
        "hold_histogram_ms": histogram(growth.holds_ms),
        "balance": growth.balance.imbalance,
        "load": growth.verdict,
    }
    return publish("rebalance", _figures(growth, copied, problems, weight), facts)


def _copy_rate(users: int) -> moving.Moved:
    with throwaway_server() as source, throwaway_server() as target:
        return asyncio.run(moving.measure([source, target], users, COPIED_BUCKETS, COPIES_AT_A_TIME))


def _import(running: RunningDeployment, users: int) -> None:
    file = running.directory / "people.ndjson"
    write_people(file, users)
    done = _denizen("import", str(file), "--data", str(running.data))
    file.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"the import ended with {done.returncode}: {done.stdout!r}")


def _denizen(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-P", "-m", "denizen", *arguments, "--json"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False)


async def _grow(running: RunningDeployment, seconds: int, weight: float, console: Console) -> Growth:
    load, desk, done = MixedLoad(running.url, running.admin_key, pause_s=PAUSE_S), desk_of(running.deployment), False
    working = asyncio.create_task(load.work(CLIENTS, lambda: done))
    try:
        await asyncio.sleep(seconds / 2)  # warm up
        began = time.monotonic()
        await asyncio.sleep(seconds)
        before = load.waits_ms(began, time.monotonic())
        await _add_shard(running, weight)
        console.print("the shard has joined")
        plan = await desk.plan("users")
        began = time.monotonic()
        await desk.run(plan)
        state = await _ended(desk, console)
        ended = time.monotonic()
        await asyncio.sleep(1.0)
    finally:
        done = True
        await working
    balance = await eventually(desk.balance)
    await _cleaned(desk)
    errors = sum(load.errors.values()) + sum(load.refused.values())
    verdict = await load.verdict()
    rebalance = state.rebalance
    problems = list(verdict.problems)
    problems += await leftovers(running.deployment, state.map) if state.map else []
    holds = [held / 1e3 for held in rebalance.holds_us] if rebalance else []
    failed = rebalance.failed + rebalance.cancelled if rebalance else len(plan.moves)
    problems += [f"{failed} moves did not succeed"] if failed else []
    during = load.waits_ms(began, ended)
    return Growth(before, during, ended - began, plan, holds, failed, balance, verdict, errors, problems)


async def _add_shard(running: RunningDeployment, weight: float) -> None:
    arguments = ("shards", "add", "--no-rebalance", "--weight", str(weight), "--json")
    done = await run_denizen(*arguments, "--data", str(running.data))
    if done.code != 0:
        raise RuntimeError(f"no shard was added: {done.out}{done.error}")


async def _ended(desk: Desk, console: Console) -> ControlState:
    """Follow the rebalance to its end."""
    told = time.monotonic()
    while True:
        state = await eventually(desk.control.state)
        rebalance = state.rebalance
        if rebalance is None or rebalance.status is not RebalanceStatus.RUNNING:
            return state
        if time.monotonic() - told > 5:
            told = time.monotonic()
            console.print(f"{rebalance.committed:,} of {rebalance.plan.moves:,} buckets have moved")
        await asyncio.sleep(0.2)


async def _cleaned(desk: Desk) -> None:
    """Wait until the sources' copies are removed."""
    await desk.change_settings(SettingsChanges(grace_s=0, clean_rows_per_s=0))
    await desk.clean()
    while (await eventually(desk.control.state)).moves:  # noqa: ASYNC110 - the state rings, but only here and there
        await asyncio.sleep(0.2)


def moved_over_optimum(plan: PlanDocument, weight: float) -> float:
    """Bytes that the plan moves, against the least that gives every shard its part: 1 each, the new one its weight."""
    held = [share.bytes for share in plan.before.shards.values() if share.buckets]
    fair = sum(held) / (len(held) + weight)
    least = sum(max(size - fair, 0.0) for size in held)
    return plan.bytes / least if least else math.nan


def histogram(values: Sequence[float]) -> dict[str, int]:
    """How many values are at most each bound, and above the one before."""
    found: dict[str, int] = {}
    low = 0.0
    for bound in (*HOLD_BUCKETS_MS, math.inf):
        found[f"≤ {bound:,}" if bound != math.inf else "more"] = sum(low < value <= bound for value in values)
        low = bound
    return found


def _figures(growth: Growth, copied: moving.Moved, problems: list[str], weight: float) -> list[Figure]:
    before, during = percentile(growth.before_ms, 99), percentile(growth.while_ms, 99)
    lost = len([problem for problem in problems if "a client met" not in problem])

    def one(what: str, value: float, unit: str, **bar: Any) -> Figure:
        return Figure(what, (value,), unit, **bar)

    return [
        one("write hold of a bucket, 50th percentile", percentile(growth.holds_ms, 50), "ms", bar="≤ 50", at_most=50),
        one("write hold of a bucket, 99th percentile", percentile(growth.holds_ms, 99), "ms", bar="≤ 250", at_most=250),
        one("write hold of a bucket, longest", max(growth.holds_ms, default=math.nan), "ms"),
        one("client errors", growth.errors, "", bar="0", at_most=0),
        one("lost, wrong or left behind", lost, "", bar="0", at_most=0),
        one("bytes moved ÷ optimum", moved_over_optimum(growth.plan, weight), "×", bar="≤ 1.02", at_most=1.02),
        one(
            "users, fullest shard ÷ its part (the mean)",
            growth.balance.imbalance.users,
            "×",
            bar="≤ 1.03",
            at_most=1.03,
        ),
        one("copy, fold and compare", copied.events_per_s, "events/s", bar="≥ 50,000", at_least=50_000),
        one("requests before, 99th percentile", before, "ms"),
        one("requests while moving, 99th percentile", during, "ms"),
        one("99th percentile, while ÷ before", during / before, "×", bar="≤ 3", at_most=3),
        one("from 2 to 3 shards", growth.seconds, "s"),
        one("buckets moved", len(growth.plan.moves) / growth.seconds, "buckets/s"),
        one("users moved", growth.plan.users / growth.seconds, "users/s"),
    ]
