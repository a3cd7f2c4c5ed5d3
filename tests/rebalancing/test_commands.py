"""`denizen shards`, `rebalance` and `buckets` on a real deployment: what they print, how they end, what they refuse."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from denizen.deployment.layout import Deployment
from denizen.deployment.state import ControlNodeState, RunState, write_state
from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.mixed_load import Done, run_denizen

pytestmark = pytest.mark.timeout(240)
Denizen = Callable[..., Done]


@pytest.fixture(scope="module")
def deployment() -> Iterator[RunningDeployment]:
    with throwaway_deployment(shards=2) as running:
        yield running


@pytest.fixture
def denizen(deployment: RunningDeployment) -> Denizen:
    """Runs a command on the deployment."""
    return lambda *arguments: asyncio.run(run_denizen(*map(str, arguments), "--data", str(deployment.data)))


def test_shards_are_shown_with_what_they_hold(denizen: Denizen) -> None:
    done = denizen("shards", "list")
    assert done.code == 0, done.error
    assert "2,048" in done.out
    assert "fullest ÷ fair part" in done.out
    shards = json.loads(denizen("shards", "list", "--no-measure", "--json").out)["items"]
    assert [(shard["id"], shard["status"], shard["buckets"]) for shard in shards] == [
        ("s1", "active", 2048),
        ("s2", "active", 2048),
    ]


def test_what_plan_printed_is_what_run_does(denizen: Denizen, tmp_path: Path) -> None:
    assert denizen("shards", "weight", "s2", "1.06").code == 0
    printed = denizen("rebalance", "plan", "--json")
    plan = json.loads(printed.out)
    assert plan["moves"]
    assert {move["source"] for move in plan["moves"]} == {"s1"}
    file = tmp_path / "plan.json"
    file.write_text(printed.out)
    done = denizen("rebalance", "run", "--plan", file, "--json")
    assert done.code == 0, done.error
    ended = json.loads(done.out)
    assert (ended["id"], ended["status"], ended["committed"]) == (plan["id"], "done", len(plan["moves"]))
    assert ended["holds"]["count"] == len(plan["moves"])
    listed = owners(denizen)
    assert all(listed[move["bucket"]] == "s2" for move in plan["moves"])
    again = denizen("rebalance", "plan", "--json")
    assert json.loads(again.out)["moves"] == []


def owners(denizen: Denizen) -> dict[int, str]:
    listed = json.loads(denizen("buckets", "list", "--json").out)["items"]
    return {each["bucket"]: each["shard"] for each in listed}


def test_buckets_move_by_hand_and_back_before_they_are_cleaned(denizen: Denizen) -> None:
    chosen = [bucket for bucket, shard in owners(denizen).items() if shard == "s1"][:4]
    buckets = ",".join(map(str, chosen))
    done = denizen("buckets", "move", buckets, "--to", "s2")
    assert done.code == 0, done.error
    assert "4 buckets" in done.out
    assert {owners(denizen)[bucket] for bucket in chosen} == {"s2"}
    assert "owns them already" in denizen("buckets", "move", str(chosen[0]), "--to", "s2").out
    assert denizen("buckets", "move", buckets, "--to", "s1").code == 0
    assert {owners(denizen)[bucket] for bucket in chosen} == {"s1"}


def test_a_rebalance_is_paused_shown_and_cancelled_and_leaves_nothing_behind(denizen: Denizen) -> None:
    before = denizen("buckets", "list", "--json").out
    assert denizen("rebalance", "settings", "--moves-per-server", "1").code == 0
    assert denizen("buckets", "move", "1000-1999", "--to", "s2", "--detach").code == 0
    paused = json.loads(denizen("rebalance", "pause", "--json").out)
    assert paused["status"] == "paused"
    assert "paused" in denizen("rebalance", "status").out
    refused = denizen("buckets", "move", "1", "--to", "s2")
    assert refused.code == 1
    assert "under way" in refused.error
    draining = denizen("shards", "drain", "s1")
    assert draining.code == 1
    assert "shard s1 is draining, but no bucket moves: a rebalance is under way" in draining.error
    assert denizen("shards", "drain", "s1", "--undo").code == 0
    assert json.loads(denizen("rebalance", "resume", "--json").out)["status"] == "running"
    cancelled = json.loads(denizen("rebalance", "cancel", "--json").out)
    assert cancelled["status"] == "cancelled"
    assert cancelled["committed"] < 1000
    ended = json.loads(denizen("rebalance", "status", "--watch", "--json").out)
    assert all(move["stage"] in ("committed", "cleaning", "done") for move in ended["moving"])
    after = denizen("buckets", "list", "--json").out
    assert len(_of(before, "s1") - _of(after, "s1")) == ended["rebalance"]["committed"]
    assert ended["rebalance"]["committed"] + ended["rebalance"]["cancelled"] == 1000


def _of(listed: str, shard: str) -> set[int]:
    return {each["bucket"] for each in json.loads(listed)["items"] if each["shard"] == shard}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("shards", "drain", "s9"), "there is no shard s9"),
        (("shards", "weight", "s1", "1000"), "a weight is between"),
        (("buckets", "move", "3", "--to", "s9"), "there is no shard s9"),
        (("rebalance", "run", "--plan", "nothing.json"), "there is no plan nothing.json"),
        (("rebalance", "run", "--plan", "-"), "- is no plan of `denizen rebalance plan --json`"),
        (("rebalance", "settings", "--moves-per-server", "1000"), "must be between"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(denizen: Denizen, arguments: tuple[str, ...], says: str) -> None:
    done = denizen(*arguments)
    assert done.code == 1
    assert says in done.error
    assert "Traceback" not in done.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("buckets", "move", "5000", "--to", "s1"), "5000: buckets are numbered 0 to 4095"),
        (("buckets", "move", "9-3", "--to", "s1"), "buckets are numbered"),
        (("changes", "--start", "now", "--cursor", "abc"), "give --start or --cursor, not both"),
    ],
)
def test_a_wrong_call_ends_with_2_and_asks_nobody(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = asyncio.run(run_denizen(*arguments, "--data", str(tmp_path)))
    assert (done.code, says in done.error) == (2, True), done.error


def test_a_deployment_that_does_not_run_is_told_as_such(tmp_path: Path) -> None:
    deployment = Deployment.create(tmp_path / "data", shards=1)
    deployment.control_secret(make=True)
    write_state(deployment.state_path, RunState(control={"1": ControlNodeState(raft_port=1, port=1)}))
    for command in (("shards", "list"), ("rebalance", "status"), ("rebalance", "status", "--watch")):
        done = asyncio.run(run_denizen(*command, "--data", str(tmp_path / "data")))
        assert done.code == 1
        assert "does not run: start it with `denizen up`" in done.error
