"""The tour's part about growing: a shard joins under live load, the map redrawn as buckets move, and the ledger's word.

Everything goes through the public interfaces: `denizen shards add`, `/v1/map`, `/v1/rebalance`, `/v1/users`.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Final

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from denizen.api.operations import MapDocument, RebalanceDocument
from denizen.client import Client
from denizen.testing.deployment import RunningDeployment
from denizen.testing.leftovers import leftovers
from denizen.testing.mixed_load import MixedLoad, Verdict, run_denizen

CLIENTS: Final = 8
WEIGHT: Final = 0.2  # of the new shard: some two hundred buckets, so that the tour stays short
CELLS: Final = 512  # each of eight buckets
COLUMNS: Final = 64
REDRAWN_S: Final = 0.5
CLEAN_WITHIN_S: Final = 60.0
COLOURS: Final = ("blue", "cyan", "magenta", "yellow", "white", "bright_blue", "bright_cyan", "bright_magenta")
NEW: Final = "bright_green"


class Grown(Struct, frozen=True):
    """How it went; `problems` is empty if every promise held."""

    verdict: Verdict
    rebalance: RebalanceDocument | None
    problems: list[str]


async def grow(running: RunningDeployment, console: Console) -> Grown:
    """Add a shard under load and let it take its share."""
    load, done = MixedLoad(running.url, running.admin_key, pause_s=0.01), False
    working = asyncio.create_task(load.work(CLIENTS, lambda: done))
    try:
        async with Client(running.url, running.admin_key) as client:
            await client.operations.change_settings(grace_s=1, clean_rows_per_s=0)
            arguments = ("shards", "add", "--weight", str(WEIGHT), "--no-rebalance", "--json")
            added = await run_denizen(*arguments, "--data", str(running.data))
            if added.code != 0:
                return Grown(await load.verdict(), None, [f"a shard joins: {added.error or added.out}"])
            new = json.loads(added.out)["id"]
            console.print(f"   {new} has joined, empty")
            await client.operations.run(await client.operations.plan("users"))
            rebalance = await _watched(client, console, new)
            problems = await _cleaned(client)
    finally:
        done = True
        await working
    verdict = await load.verdict()
    problems += verdict.problems
    if rebalance is None or rebalance.status != "done" or rebalance.failed:
        problems.append(f"the rebalance comes to its end, not {rebalance and rebalance.status}")
    return Grown(verdict, rebalance, problems)


async def clean_servers(running: RunningDeployment) -> list[str]:
    """What any server holds that is not its own, by its tables."""
    from denizen.operators.opening import desk_of

    state = await desk_of(running.deployment).control.state()
    return ["there is no map"] if state.map is None else await leftovers(running.deployment, state.map)


async def _watched(client: Client, console: Console, new: str) -> RebalanceDocument | None:
    """Redraw the map until all buckets have moved."""
    with _canvas(console) as canvas:
        while True:
            mapped, status = await client.operations.map(), await client.operations.status()
            rebalance = status.rebalance
            ended = rebalance is None or rebalance.status != "running"
            canvas.draw(picture(mapped, rebalance, new), last=ended)
            if ended:
                return rebalance
            await asyncio.sleep(REDRAWN_S)


async def _cleaned(client: Client) -> list[str]:
    """Wait until the sources have removed their copies."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLEAN_WITHIN_S):
            while (await client.operations.status()).moving:  # noqa: ASYNC110 - the API rings no bell
                await asyncio.sleep(REDRAWN_S)
            return []
    return ["sources remove their copies when the grace is over"]


class _Canvas:
    """Draws in place on a terminal; elsewhere only the last picture."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live

    def draw(self, what: RenderableType, *, last: bool) -> None:
        if self._live is not None:
            self._live.update(what, refresh=True)
        elif last:
            self._console.print(what)


@contextlib.contextmanager
def _canvas(console: Console) -> Iterator[_Canvas]:
    if not console.is_terminal:
        yield _Canvas(console, None)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _Canvas(console, live)


def picture(mapped: MapDocument, rebalance: RebalanceDocument | None, new: str) -> RenderableType:
    """The map, a cell for eight buckets in the colour of who owns most of them; shards, balance, holds below it."""
    owners = [shard for each in mapped.ranges for shard in [each.shard] * (each.last - each.first + 1)]
    size = len(owners) // CELLS
    colours = {
        shard: NEW if shard == new else COLOURS[place % len(COLOURS)] for place, shard in enumerate(mapped.shards)
    }
    text = Text()
    for start in range(0, len(owners), size):
        part = owners[start : start + size]
        shard = new if new in part else part[0]
        share = part.count(new) / size
        text.append("█" if shard != new or share > 0.75 else "▓" if share > 0.4 else "▒", style=colours[shard])
        if (start // size + 1) % COLUMNS == 0:
            text.append("\n")
    table = Table.grid(padding=(0, 2))
    for shard in mapped.shards:
        table.add_row(Text("■", style=colours[shard]), shard, f"{owners.count(shard):,} buckets")
    parts: list[RenderableType] = [text, table]
    if rebalance is not None:
        parts.append(Text(_facts(rebalance)))
    return Group(*parts)


def _facts(rebalance: RebalanceDocument) -> str:
    holds = rebalance.holds
    held = f", writes held {holds.p50_ms:.0f} ms (p50), {holds.p99_ms:.0f} ms (p99)" if holds.count else ""
    before, after = rebalance.before.imbalance, rebalance.after.imbalance
    return (
        f"{rebalance.committed:,} of {rebalance.moves:,} buckets moved{held}; "
        f"fullest shard ÷ fair part {before:.3f} → {after:.3f}"
    )
