"""How late the directory is: from a change's acknowledgement over HTTP to its being visible to a reader.

The load goes through the real gateway, relay and projector. Every twentieth change is looked for in the read database
every two milliseconds, from its acknowledgement on, until a reader sees its version; so the figure is too high by up to
two milliseconds, never too low.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from denizen.bench.cqrs.load import Change, paced
from denizen.bench.cqrs.plant import Plant
from denizen.bench.report import Figure, percentile
from denizen.projections.reading import ReadModels

RATE = 2_000
SAMPLE = 20  # each look costs the machine that is measured
LANES = 64
LOOK_S = 0.002
EDGES_MS = (2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 500, 1_000)
_VISIBLE = "select user_id, version from denizen_read.directory where user_id = any ($1)"


class Watcher:
    """Looks for changes until they are visible."""

    def __init__(self, sample: int = SAMPLE) -> None:
        """Take one change in `sample`."""
        self._sample = sample
        self._wanted: dict[UUID, list[Change]] = {}
        self._noted = 0
        self.seen: list[tuple[float, float]] = []  # when each was acknowledged, and when it was visible

    @property
    def waiting(self) -> int:
        """Users with changes that are not visible yet."""
        return len(self._wanted)

    @property
    def late_ms(self) -> list[float]:
        """How late each was."""
        return [(visible - acknowledged) * 1000 for acknowledged, visible in self.seen]

    def note(self, change: Change) -> None:
        """A change was acknowledged; look for it, if it is one to be looked for."""
        self._noted += 1
        if self._noted % self._sample == 0:
            self._wanted.setdefault(change.user_id, []).append(change)

    async def watch(self, reads: ReadModels) -> None:
        """Look again and again; for ever."""
        async with reads.reader() as connection:
            await connection.execute("set plan_cache_mode = force_generic_plan")  # one statement, again and again
            while True:
                if self._wanted:
                    rows = await connection.fetch(_VISIBLE, list(self._wanted))
                    now = time.monotonic()
                    for user_id, version in rows:
                        self._take(user_id, version, now)
                await asyncio.sleep(LOOK_S)

    def _take(self, user_id: UUID, version: int, now: float) -> None:
        waiting = self._wanted.pop(user_id)
        self.seen += [(change.at, now) for change in waiting if change.version <= version]
        later = [change for change in waiting if change.version > version]
        if later:
            self._wanted[user_id] = later

    async def settle(self, seconds: float = 30.0) -> None:
        """Wait until everything looked for was seen."""
        async with asyncio.timeout(seconds):
            while self._wanted:  # noqa: ASYNC110 - a benchmark
                await asyncio.sleep(0.01)


async def measure(plant: Plant, seconds: float) -> tuple[list[Figure], dict[str, float]]:
    """Figures, and the histogram: the share of changes that were visible within so many milliseconds."""
    await paced(plant.target, rate=RATE / 2, seconds=2, lanes=LANES, acknowledged=lambda _: None)  # people, warm caches
    await plant.until_level()
    watcher, changes = Watcher(), 0

    def note(change: Change) -> None:
        nonlocal changes
        changes += 1
        watcher.note(change)

    async with ReadModels(plant.running.deployment.read_connect_args) as reads:
        watching = asyncio.create_task(watcher.watch(reads))
        before = plant.used()
        await paced(plant.target, rate=RATE, seconds=seconds, lanes=LANES, acknowledged=note)
        used = plant.used().since(before)
        await watcher.settle()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    late = sorted(watcher.late_ms)
    figures = [
        Figure(f"changes acknowledged a second, offered {RATE:,}", (changes / seconds,), "/s"),
        Figure("lag, acknowledged to visible, p50", (percentile(late, 50),), "ms", "≤ 30", at_most=30),
        Figure("lag, p99", (percentile(late, 99),), "ms", "≤ 100", at_most=100),
        Figure("lag, longest", (percentile(late, 100),), "ms"),
        *(Figure(f"{part}, each change", (spent / changes * 1e6,), "µs") for part, spent in used.items()),
    ]
    return figures, histogram(late)


def histogram(late: Sequence[float]) -> dict[str, float]:
    """Cumulative, as a share of all."""
    return {f"≤ {edge} ms": sum(each <= edge for each in late) / max(1, len(late)) for edge in EDGES_MS}
