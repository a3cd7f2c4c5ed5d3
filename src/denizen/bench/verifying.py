"""How fast does `denizen verify` check a deployment of generated people?"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from denizen.bench.people import write_people
from denizen.bench.report import Figure, Report, publish
from denizen.testing.deployment import throwaway_deployment

RATE_MIN = 100_000


def run(*, rows: int = 500_000, runs: int = 3, shards: int = 4) -> Report:
    """Import `rows` people, verify them some times, and publish; the path of the figures."""
    with tempfile.TemporaryDirectory(prefix="denizen-bench-") as directory:
        people = Path(directory) / "people.ndjson"
        write_people(people, rows)
        with throwaway_deployment(shards=shards, arguments=["--no-gateway"], configuration="") as running:
            _denizen("import", str(people), "--data", str(running.data))
            outcomes = [_denizen("verify", "--data", str(running.data)) for _ in range(runs)]
    rates = tuple(outcome["events"] / outcome["seconds"] for outcome in outcomes)
    figures = [
        Figure("verified", rates, "events/s", f"≥ {RATE_MIN:,}", at_least=RATE_MIN),
        Figure("one verification", tuple(outcome["seconds"] for outcome in outcomes), "s"),
    ]
    return publish("verify", figures, {"rows": rows, "shards": shards, "events": outcomes[0]["events"]})


def _denizen(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "denizen", *arguments, "--json"], stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer
