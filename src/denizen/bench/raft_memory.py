"""The memory of the nodes while very many writes go through them, snapshots on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from msgspec import Struct

from denizen.bench.http_load import drive
from denizen.bench.raft_systems import KEYS, Denizen, put_request

_LANES = 64
_PARTS = 20
_GROWTH_MAX = 1.10
_SECONDS_MAX = 600.0


class MemorySamples(Struct, frozen=True):
    """After so many writes, the resident size of each node in MiB."""

    samples: list[tuple[int, list[float]]]

    @property
    def flat(self) -> bool:
        """Whether the last half's largest size is at most a tenth above what the first half came to."""
        half = len(self.samples) // 2
        early, late = self.samples[:half], self.samples[half:]
        nodes = range(len(self.samples[0][1]))
        return all(max(s[1][n] for s in late) <= _GROWTH_MAX * max(s[1][n] for s in early) for n in nodes)

    def facts(self) -> dict[str, Any]:
        return {"flat": self.flat, "mib_after_writes": self.samples}


def measure_memory(directory: Path, writes: int, say: Callable[[str], None]) -> MemorySamples:
    """Make so many writes and sample the nodes' memory twenty times on the way."""
    system = Denizen(directory, snapshot_entries=2_000)
    samples: list[tuple[int, list[float]]] = []
    try:
        system.start()
        for part in range(_PARTS):
            _drive(system, writes // _PARTS)
            samples.append(((part + 1) * (writes // _PARTS), system.memory_mib()))
            say(f"{samples[-1][0]:>9,} writes: {', '.join(f'{size:.0f}' for size in samples[-1][1])} MiB")
    finally:
        system.stop()
    return MemorySamples(samples)


def _drive(system: Denizen, writes: int) -> None:
    url, token = system.leader_url()
    host, port = url.removeprefix("http://").split(":")
    prepared = [put_request(number, f"{host}:{port}", token) for number in range(KEYS)]
    run = drive(host, int(port), lambda n: prepared[n % KEYS], lanes=_LANES, seconds=_SECONDS_MAX, requests_max=writes)
    result = uvloop.run(run)
    if result.succeeded != writes:
        raise RuntimeError(f"{result.succeeded} of {writes} writes succeeded")
