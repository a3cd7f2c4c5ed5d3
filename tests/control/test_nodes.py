"""Control nodes and their clients: whatever minority is gone, commands are decided; maps are told without a leader."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from denizen.control.commands import AddShard, Founded, SetWeight, ShardReady
from denizen.control.map_source import ControlMapSource
from denizen.control.node import ControlNode
from denizen.control.wire import request
from denizen.errors import BadDeployment, Refused, Unavailable
from denizen.sharding.bucket_map import initial_map, read_map, write_map
from denizen.sharding.ids import ShardId

from .cluster import DEPLOYMENT, Cluster, cluster

S1, S2, S3 = ShardId("s1"), ShardId("s2"), ShardId("s3")
FOUNDED = Founded(at_ms=1, deployment=DEPLOYMENT, map=initial_map([S1, S2]), shards={S1: None, S2: None})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def add(nodes: Cluster, shard: ShardId, at_ms: int = 2) -> None:
    """One more shard: the map names it afterwards, at the next version."""
    client = nodes.client()
    await client.propose(AddShard(at_ms=at_ms, shard=shard))
    await client.propose(ShardReady(at_ms=at_ms, shard=shard))


async def test_a_command_is_decided_wherever_it_is_said_and_known_everywhere(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        for node in nodes.peers:
            accepted = await nodes.client(only=node).propose(FOUNDED)
            assert accepted.changed is (node == 1)
        for node in nodes.peers:
            state = await nodes.client(only=node).state(linearizable=True)
            assert state.map == FOUNDED.map
            assert state.deployment == DEPLOYMENT


async def test_what_the_state_machine_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as nodes:
        with pytest.raises(Refused, match="not founded") as refused:
            await nodes.client().propose(AddShard(at_ms=1, shard=S3))
        assert refused.value.facts["reason"] == "not_founded"


async def test_a_stranger_learns_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as nodes:
        for token in ("", "wrong"):
            for target in ("/v1/state", "/v1/map", "/v1/status", "/v1/nothing"):
                assert (await request(nodes.addresses[1], "GET", target, token)).status == 401
        assert (await request(nodes.addresses[1], "POST", "/v1/propose", "", b"x" * 100_000)).status == 401


async def test_garbage_is_no_command(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as nodes:
        client = nodes.client()
        for body in (b"", b"garbage", b"\x92\x01\xa1x"):
            answer = await request(nodes.addresses[1], "POST", "/v1/propose", client._token(), body)
            assert answer.status == 400, body


async def test_who_waits_for_a_map_has_it_at_once(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        waiting = [asyncio.create_task(nodes.client(only=node).watch_map(1)) for node in nodes.peers]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        await add(nodes, S3)
        began = asyncio.get_running_loop().time()
        maps = await asyncio.gather(*waiting)
        assert [found.shards for found in maps] == [(S1, S2, S3)] * 3
        assert asyncio.get_running_loop().time() - began < 1


async def test_a_lost_leader_is_replaced_and_its_commands_are_kept(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        lost = await nodes.leader()
        await nodes.stop(lost)
        await add(nodes, S3)
        await nodes.start(lost)
        await until(lambda: nodes.running[lost][0].state.map == nodes.running[lost % 3 + 1][0].state.map)
        assert S3 in nodes.running[lost][0].state.shards


async def test_without_a_majority_maps_are_told_and_commands_are_not_decided(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        await until(lambda: all(node.state.map for node, _ in nodes.running.values()))
        await asyncio.gather(*(node.known() for node, _ in nodes.running.values()))
        await nodes.stop(1)
        await nodes.stop(2)
        client = nodes.client(patience_s=0.5)
        assert await client.watch_map(0) == FOUNDED.map
        assert (await client.state()).map == FOUNDED.map
        with pytest.raises(Unavailable):
            await client.propose(AddShard(at_ms=2, shard=S3))
        with pytest.raises(Unavailable):
            await client.state(linearizable=True)
        assert [status.role for status in await client.status()][:2] == ["down", "down"]


async def test_a_node_that_starts_tells_no_state_before_it_knows_what_was_decided(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        for node in nodes.peers:
            await nodes.stop(node)
        await nodes.start(1)
        with pytest.raises(Unavailable):
            await nodes.client(only=1, patience_s=0.5).state()
        with pytest.raises(Unavailable):
            await nodes.client(only=1, patience_s=0.5).watch(-1)
        await nodes.start(2)
        assert (await nodes.client(only=1).state()).map == FOUNDED.map


async def test_all_nodes_end_and_begin_again_with_everything_decided(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        await add(nodes, S3)
        for node in nodes.peers:
            await nodes.stop(node)
        await asyncio.gather(*map(nodes.start, nodes.peers))
        assert (await nodes.client().state(linearizable=True)).shards.keys() == {S1, S2, S3}


async def test_work_is_done_while_a_node_leads_and_by_no_other(tmp_path: Path) -> None:
    at_work: list[int] = []

    class Working:
        def __init__(self, node: ControlNode) -> None:
            self._node = node

        async def run(self) -> None:
            at_work.append(self._node.plan.id)
            try:
                await asyncio.Event().wait()
            finally:
                at_work.remove(self._node.plan.id)

        def progress(self) -> list[Any]:
            return []

    async with cluster(tmp_path, make_work=Working) as nodes:
        await until(lambda: len(at_work) == 1)
        first = at_work[0]
        assert first == await nodes.leader()
        executing = [status.id for status in await nodes.client().status() if status.executing]
        assert executing == [first]
        await nodes.stop(first)
        await until(lambda: len(at_work) == 1)
        assert at_work[0] != first
    assert not at_work


async def test_a_source_of_maps_is_told_at_once_and_serves_on_without_any_node(tmp_path: Path) -> None:
    cache = tmp_path / "map.json"
    async with cluster(tmp_path, 1) as nodes:
        source = ControlMapSource(nodes.client(), cache)
        with pytest.raises(BadDeployment):  # nothing is founded, nothing is cached
            await source.current()
        await nodes.client().propose(FOUNDED)
        assert await source.newer_than(0) == FOUNDED.map
        waiting = asyncio.create_task(source.newer_than(1))
        await add(nodes, S3)
        newest = await waiting
        assert newest.shards == (S1, S2, S3)
    assert await source.current() == newest
    waiting = asyncio.create_task(source.newer_than(newest.version))
    await asyncio.sleep(0.1)
    write_map(cache, initial_map([S1]))  # an old one says nothing
    await asyncio.sleep(0.3)
    assert not waiting.done()
    async with cluster(tmp_path, 1) as again:  # the same directory: the source's node is back, elsewhere
        source._client = again.client()
        await add(again, ShardId("s4"), 3)
        assert S3 in (await waiting).shards


async def test_a_process_starts_with_the_cached_map_when_no_node_answers(tmp_path: Path) -> None:
    cache = tmp_path / "map.json"
    write_map(cache, initial_map([S1, S2]))
    source = ControlMapSource(Cluster(tmp_path, 3).client(), cache)
    assert await source.current() == read_map(cache)


class Watching:
    """Work that waits for one change after the other, as the executor does."""

    def __init__(self, node: ControlNode) -> None:
        self._node = node

    async def run(self) -> None:
        while True:
            await self._node.changed(self._node.state.revision, 60)

    def progress(self) -> list[Any]:
        return []


async def test_work_that_waits_for_changes_does_not_keep_a_node_from_stopping(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, Watching) as nodes:
        await nodes.leader()
        node, _ = nodes.running[1]
        await nodes.client().propose(FOUNDED)
        node.release()
        async with asyncio.timeout(5):
            await asyncio.sleep(0.05)  # the loop still turns
            await nodes.stop(1)


async def test_the_voters_that_follow_know_a_change_long_before_the_next_heartbeat(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.client().propose(FOUNDED)
        leader = nodes.running[await nodes.leader()][0]
        loop = asyncio.get_running_loop()
        late: list[float] = []
        for turn in range(1, 12):
            await leader.propose(SetWeight(at_ms=turn, shard=S1, weight=1 + turn / 10))
            decided = loop.time()
            for node, _ in nodes.running.values():
                while node.state.revision < leader.state.revision:
                    await asyncio.sleep(0.001)
            late.append(loop.time() - decided)
        assert sorted(late)[len(late) // 2] < 0.03  # it was half a heartbeat, 50 ms
