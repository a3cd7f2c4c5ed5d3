"""`python -m denizen.bench.raft`: our Raft against etcd and PySyncObj, three nodes each, fsync on, in one run.

The systems take turns, so that a machine that is busy for a while slows all of them; medians of the runs are compared.
Then the leader is killed again and again, and with `--memory` a million writes are made while the nodes' memory is
looked at. A table is printed and everything is written as JSON to `bench-results/`.

    python -m denizen.bench.raft                     # about three minutes
    python -m denizen.bench.raft --runs 5 --seconds 10 --kills 200 --memory 1000000
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from denizen.bench.raft_failover import measure_failovers
from denizen.bench.raft_memory import MemorySamples, measure_memory
from denizen.bench.raft_systems import Denizen, Etcd, PySyncObj, System
from denizen.bench.report import percentile

IN_FLIGHT = (64, 256, 1)
RATIO_TO_ETCD_MIN = 1.0
RATIO_TO_PYSYNCOBJ_MIN = 5.0
FAILOVER_P99_MS_MAX = 1_000.0
Runs = dict[str, dict[int, list[dict[str, float]]]]


def main() -> int:
    options = _options()
    console = Console()
    facts: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "options": vars(options),
    }
    with tempfile.TemporaryDirectory(prefix="denizen-bench-raft-", dir=options.directory) as scratch:
        runs = _measure_throughput(Path(scratch), options, console)
        facts["throughput"], facts["ratios"] = _summary(runs), _ratios(runs)
        _print_throughput(console, facts["throughput"], facts["ratios"])
        if options.kills:
            silences = _measure_failovers(Path(scratch) / "failover", options.kills, console)
            facts["failover_ms"] = _failover_facts(silences)
            _print_failovers(console, facts["failover_ms"])
        if options.memory:
            samples = measure_memory(Path(scratch) / "memory", options.memory, console.print)
            facts["memory"] = samples.facts()
            _print_memory(console, samples)
    facts["missed"] = _missed(facts)
    path = _write(facts, options.results)
    console.print(f"\nWritten to {path}")
    for miss in facts["missed"]:
        console.print(f"[red]missed: {miss}[/red]")
    return 1 if facts["missed"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m denizen.bench.raft", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs of each system")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--kills", type=int, default=20, help="leaders to kill (0: none; 200: the full run)")
    parser.add_argument("--memory", type=int, default=0, help="writes over which to look at the memory (1000000)")
    parser.add_argument("--directory", default=None, help="where the systems keep their logs while it runs")
    parser.add_argument("--results", type=Path, default=Path("bench-results"), help="where the JSON goes")
    return parser.parse_args()


# --- measuring -------------------------------------------------------------------------------------------------------


def _measure_throughput(scratch: Path, options: argparse.Namespace, console: Console) -> Runs:
    runs: Runs = {}
    for run in range(options.runs):
        systems: list[System] = [
            Denizen(scratch / f"denizen{run}"),
            Etcd(scratch / f"etcd{run}"),
            PySyncObj(scratch / f"pysyncobj{run}"),
        ]
        for system in systems:
            try:
                system.start()
                for lanes in IN_FLIGHT:
                    facts = _measure_one(system, lanes, options.seconds)
                    runs.setdefault(system.name, {}).setdefault(lanes, []).append(facts)
                    console.print(
                        f"run {run + 1}/{options.runs}  {system.name:<10} {lanes:>3} in flight  "
                        f"{facts['per_second']:>8,.0f}/s  p50 {facts['p50_ms']:.2f} ms  p99 {facts['p99_ms']:.2f} ms"
                        + (f"  {facts['refused']:.0f} refused" if facts["refused"] else "")
                    )
            finally:
                system.stop()
    return runs


def _measure_one(system: System, lanes: int, seconds: float) -> dict[str, float]:
    result = system.measure(lanes, seconds)
    return {
        "per_second": result.per_second,
        "p50_ms": result.percentile_ms(50),
        "p99_ms": result.percentile_ms(99),
        "writes": result.succeeded,
        "refused": result.failed,
    }


def _measure_failovers(directory: Path, kills: int, console: Console) -> list[float]:
    with console.status("") as status:
        done: list[float] = []

        def report(silence_ms: float) -> None:
            done.append(silence_ms)
            status.update(f"leader killed {len(done)}/{kills} times, the last silence was {silence_ms:.0f} ms")

        return measure_failovers(directory, kills, report)


# --- judging ---------------------------------------------------------------------------------------------------------


def _summary(runs: Runs) -> dict[str, Any]:
    return {
        name: {
            str(lanes): {
                "median_per_second": statistics.median(one["per_second"] for one in measured),
                "median_p50_ms": statistics.median(one["p50_ms"] for one in measured),
                "median_p99_ms": statistics.median(one["p99_ms"] for one in measured),
                "runs": measured,
            }
            for lanes, measured in by_lanes.items()
        }
        for name, by_lanes in runs.items()
    }


def _ratios(runs: Runs) -> dict[str, dict[str, float]]:
    def median(name: str, lanes: int) -> float:
        return statistics.median(one["per_second"] for one in runs[name][lanes])

    return {
        rival: {str(lanes): median("denizen", lanes) / median(rival, lanes) for lanes in IN_FLIGHT}
        for rival in ("etcd", "pysyncobj")
    }


def _failover_facts(silences_ms: list[float]) -> dict[str, Any]:
    percentiles = {f"p{percent}": percentile(silences_ms, percent) for percent in (50, 95, 99)}
    return {"kills": len(silences_ms), **percentiles, "max": max(silences_ms), "all": sorted(silences_ms)}


def _missed(facts: dict[str, Any]) -> list[str]:
    missed = []
    for rival, least in (("etcd", RATIO_TO_ETCD_MIN), ("pysyncobj", RATIO_TO_PYSYNCOBJ_MIN)):
        for lanes in ("64", "256"):
            ratio = facts["ratios"][rival][lanes]
            if ratio < least:
                missed.append(f"{ratio:.2f} of {rival} at {lanes} in flight, at least {least} wanted")
    if "failover_ms" in facts and facts["failover_ms"]["p99"] > FAILOVER_P99_MS_MAX:
        missed.append(f"failover p99 {facts['failover_ms']['p99']:.0f} ms, at most {FAILOVER_P99_MS_MAX:.0f} wanted")
    if "memory" in facts and not facts["memory"]["flat"]:
        missed.append("the nodes' memory is not flat")
    return missed


# --- showing ---------------------------------------------------------------------------------------------------------


def _print_throughput(console: Console, summary: dict[str, Any], ratios: dict[str, Any]) -> None:
    table = Table(
        "system", "in flight", "writes/s", "p50 ms", "p99 ms", "denizen is", title="three nodes, fsync on, medians"
    )
    for name, by_lanes in summary.items():
        for lanes, one in by_lanes.items():
            ratio = "" if name == "denizen" else f"× {ratios[name][lanes]:.2f}"
            numbers = (f"{one['median_per_second']:,.0f}", f"{one['median_p50_ms']:.2f}", f"{one['median_p99_ms']:.2f}")
            table.add_row(name, lanes, *numbers, ratio)
    console.print(table)


def _print_failovers(console: Console, facts: dict[str, Any]) -> None:
    table = Table(
        "kills", "p50 ms", "p95 ms", "p99 ms", "max ms", title="leader killed: time without a successful write"
    )
    table.add_row(str(facts["kills"]), *(f"{facts[name]:.0f}" for name in ("p50", "p95", "p99", "max")))
    console.print(table)


def _print_memory(console: Console, samples: MemorySamples) -> None:
    table = Table("writes", *(f"node {node + 1} MiB" for node in range(3)), title="memory of the nodes")
    for writes, sizes in samples.samples:
        table.add_row(f"{writes:,}", *(f"{size:.0f}" for size in sizes))
    console.print(table)


def _write(facts: dict[str, Any], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"raft-{facts['started'].replace(':', '')}.json"
    path.write_text(json.dumps(facts, indent=2, default=str) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
