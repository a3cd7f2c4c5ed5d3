"""The demo tells the truth, and the benchmark's three systems take writes."""

import sys
from pathlib import Path

import pytest

from denizen.bench import raft as bench
from denizen.bench.raft_failover import measure_failovers
from denizen.bench.raft_systems import Denizen, Etcd, PySyncObj, System
from denizen.raft.kv import demo
from denizen.raft.linearizability import Operation, Verdict


def test_demo_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run_demo(0.5, rounds=1) == 0
    told = capsys.readouterr().out
    assert "kill -9" in told
    assert "linearizable" in told


def test_demo_fails_loudly_when_the_history_is_not_linearizable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(history: list[Operation]) -> Verdict:
        return Verdict(False, len(history), 0, 1, "made up")

    monkeypatch.setattr(demo, "check", refuse)
    assert demo.run_demo(0.1, rounds=1) == 1
    assert "FAILED: the history is not linearizable: made up" in capsys.readouterr().err


@pytest.mark.parametrize("system", [Denizen, Etcd, PySyncObj])
def test_system_takes_writes_of_the_same_client(system: type[Denizen | Etcd | PySyncObj], tmp_path: Path) -> None:
    running: System = system(tmp_path)
    try:
        running.start()
        result = running.measure(8, 0.3)
    finally:
        running.stop()
    assert result.succeeded > 0
    assert result.failed == 0
    assert result.percentile_ms(50) <= result.percentile_ms(99)


def test_failovers_are_measured_one_by_one(tmp_path: Path) -> None:
    told: list[float] = []
    assert measure_failovers(tmp_path, 2, told.append) == told
    assert len(told) == 2
    assert all(silence > 1 for silence in told)


def test_what_misses_its_bar_is_named() -> None:
    facts = {
        "ratios": {"etcd": {"64": 0.9, "256": 1.2}, "pysyncobj": {"64": 6.0, "256": 4.0}},
        "failover_ms": {"p99": 1_200.0},
        "memory": {"flat": False},
    }
    missed = bench._missed(facts)
    assert len(missed) == 4
    assert missed[0].startswith("0.90 of etcd at 64 in flight")


def test_benchmark_explains_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["raft", "--help"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    assert "--kills" in capsys.readouterr().out
