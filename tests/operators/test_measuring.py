"""What the desk says of shards that do not answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar, cast

import pytest

from control.states import a_state
from denizen import limits
from denizen.control.client import ControlClient
from denizen.control.commands import Command
from denizen.control.planner import plan_moves
from denizen.control.ports import BucketMeasures, Measured
from denizen.control.state import ControlState
from denizen.errors import Refused
from denizen.operators.desk import Desk
from denizen.operators.measuring import ShardMeasures
from denizen.operators.plans import plan_document
from denizen.sharding.ids import BUCKETS, Bucket, ShardId

T = TypeVar("T")
S1, S2 = ShardId("s1"), ShardId("s2")


async def beside_a_silent_server(work: Callable[[int], Awaitable[T]]) -> T:
    """Do this with the port of a server that takes connections and never says a word."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: taken.append(writer), "127.0.0.1", 0)
    async with server:
        try:
            return await asyncio.wait_for(work(server.sockets[0].getsockname()[1]), 30)
        finally:
            for writer in taken:
                writer.close()


def test_a_server_that_stands_still_is_not_waited_for_as_long_as_for_its_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "measure_connect_s", 0.2, raising=False)

    async def work(port: int) -> Measured:
        place = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d", "ssl": False}
        return await ShardMeasures(lambda: {S1: place}).measure(a_state(1))

    measured = asyncio.run(beside_a_silent_server(work))
    assert measured.degraded == {S1: "it does not answer in time"}


def test_who_does_not_answer_is_known_without_weighing_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure_connect_s", 0.2, raising=False)

    async def work(port: int) -> Mapping[ShardId, str]:
        place = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p", "database": "d", "ssl": False}
        return await ShardMeasures(lambda: {S1: place}).silent(a_state(2), [S1, ShardId("s9")])

    assert asyncio.run(beside_a_silent_server(work)) == {S1: "it does not answer in time"}


def test_a_plan_that_was_kept_is_not_begun_while_a_shard_of_it_does_not_answer() -> None:
    plan = plan_document(plan_moves(a_state(2), {}, [(Bucket(0), S2)]))
    plane = Plane()
    desk = Desk(cast(ControlClient, plane), cast(ShardMeasures, Measures()))
    with pytest.raises(Refused, match="shard s2 is degraded: it does not answer"):
        asyncio.run(desk.run(plan))
    assert plane.told == []


class Plane:
    """A control plane with one state, which remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Command] = []

    async def propose(self, command: Command) -> None:
        self.told.append(command)

    async def state(self, *, linearizable: bool = False) -> ControlState:
        return a_state(2)


class Measures:
    """A hundred users in each bucket, but the second shard does not answer."""

    async def measure(self, state: ControlState, *, window_s: float = 0.0) -> Measured:
        assert state.map is not None
        each = BucketMeasures(100, 10_000, 1.0)
        return Measured(dict.fromkeys(state.map.buckets_of(S1), each), {S2: "it does not answer"})

    async def silent(self, state: ControlState, shards: Iterable[ShardId]) -> Mapping[ShardId, str]:
        return {S2: "it does not answer"} if S2 in shards else {}


def test_a_shard_that_does_not_answer_is_not_shown_as_empty() -> None:
    found = asyncio.run(Desk(cast(ControlClient, Plane()), cast(ShardMeasures, Measures())).balance())
    assert (found.shards["s1"].users, found.shards["s1"].filled) == (100 * BUCKETS // 2, 1.0)
    assert set(found.shards) == {"s1"}
    assert found.silent == {"s2": "it does not answer"}
    assert (found.imbalance.users, found.imbalance.bytes, found.imbalance.requests) == (1.0, 1.0, 1.0)
