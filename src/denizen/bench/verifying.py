"""How fast does `denizen verify` check a deployment of generated people?"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from denizen.bench.people import write_people
from denizen.bench.results import publish
from denizen.testing.deployment import throwaway_deployment


class Run(Struct, frozen=True):
    """One verification."""

    events: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


def run(*, rows: int = 500_000, runs: int = 3, shards: int = 4) -> None:
    """Import `rows` people, verify them some times, print a table, write `bench-results/verify.json`."""
    with tempfile.TemporaryDirectory(prefix="denizen-bench-") as directory:
        people = Path(directory) / "people.ndjson"
        write_people(people, rows)
        with throwaway_deployment(shards=shards, arguments=["--no-gateway"], configuration="") as running:
            _denizen("import", str(people), "--data", str(running.data))
            results = []
            for _ in range(runs):
                outcome = _denizen("verify", "--data", str(running.data))
                results.append(Run(int(outcome["events"]), outcome["seconds"]))
    median = statistics.median(result.per_second for result in results)
    publish(
        "verify",
        f"Verify of {rows:,} people on {shards} shards; median {median:,.0f} events/s (bar 100,000)",
        ("events", "seconds", "events/s"),
        [(f"{each.events:,}", f"{each.seconds:.1f}", f"{each.per_second:,.0f}") for each in results],
        {"rows": rows, "shards": shards, "events_per_second": median, "runs": results},
    )


def _denizen(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "denizen", *arguments, "--json"], stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer
