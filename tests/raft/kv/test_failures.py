"""Clusters of real processes, real clients and real failures; every history is checked for linearizability."""

import asyncio
import contextlib
import signal
import time
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from kv_clusters import Start, Watched, eventually
from kv_mesh import Mesh

from denizen.raft.kv.client import KeyValueClient
from denizen.raft.kv.errors import CompactedRevision, KeyValueError, LostLease
from denizen.raft.kv.workload import Workload
from denizen.raft.linearizability import check


def load_on(it: Watched, **more: Any) -> Workload:
    return Workload(it.cluster.endpoints, it.cluster.token, **more)


async def writes_succeed(load: Workload, count: int = 50) -> None:
    """Wait until so many more writes were acknowledged."""
    goal = len(load.writes) + count

    async def reached() -> bool:
        return len(load.writes) >= goal

    await eventually(reached, f"{count} more writes")


def assert_linearizable(load: Workload) -> None:
    verdict = check(load.history)
    assert verdict.linearizable, verdict.explanation
    assert verdict.operations > 100


async def test_leader_killed_under_load_and_back_again_loses_nothing(start: Start) -> None:
    it = await start(3, snapshot_entries=200)
    async with load_on(it) as load:
        for _ in range(3):
            await writes_succeed(load)
            leader = await it.leader()
            it.cluster.kill(leader)
            await it.leader([id for id in it.cluster.ids if id != leader])
            await writes_succeed(load)
            it.cluster.start(leader)
        await it.leader()
    await it.caught_up()
    assert_linearizable(load)


async def test_leader_stopped_past_its_time_and_resumed_answers_nothing_stale(three: Watched) -> None:
    async with load_on(three) as load:
        for _ in range(2):
            await writes_succeed(load)
            leader = await three.leader()
            three.cluster.signal(leader, signal.SIGSTOP)
            await three.leader([id for id in three.cluster.ids if id != leader])
            await writes_succeed(load)
            three.cluster.signal(leader, signal.SIGCONT)
            await writes_succeed(load)
    await three.caught_up()
    assert_linearizable(load)


async def test_network_cut_between_any_two_of_three(start: Start) -> None:
    mesh = Mesh()
    async with contextlib.AsyncExitStack() as stack:
        it = await _start_meshed(start, mesh, stack, 3)
        load = await stack.enter_async_context(load_on(it))
        for one, other in [(1, 2), (2, 3), (1, 3)]:
            await writes_succeed(load)
            mesh.cut(one, other)
            await writes_succeed(load)
            await mesh.heal()
        await load.stop()
        await it.caught_up()
        assert_linearizable(load)


async def test_leader_cut_off_cannot_read_or_write_and_the_rest_goes_on(start: Start) -> None:
    mesh = Mesh()
    async with contextlib.AsyncExitStack() as stack:
        it = await _start_meshed(start, mesh, stack, 3)
        load = await stack.enter_async_context(load_on(it))
        await writes_succeed(load)
        leader = await it.leader()
        mesh.cut_off(leader, it.cluster.ids)
        await it.leader([id for id in it.cluster.ids if id != leader])
        async with KeyValueClient([it.cluster.endpoint(leader)], it.cluster.token, timeout_s=1.0) as alone:
            with pytest.raises(KeyValueError):
                await alone.get("key/0")
            with pytest.raises(KeyValueError):
                await alone.put("key/alone", "never acknowledged")
        await writes_succeed(load)
        await mesh.heal()
        await writes_succeed(load)
        await load.stop()
        await it.caught_up()
        assert_linearizable(load)


async def test_leader_that_can_send_but_not_hear_steps_down(start: Start) -> None:
    mesh = Mesh()
    async with contextlib.AsyncExitStack() as stack:
        it = await _start_meshed(start, mesh, stack, 3)
        leader = await it.leader()
        others = [id for id in it.cluster.ids if id != leader]
        for other in others:
            mesh.mute(other, leader)
        assert await it.leader(others) != leader
        await mesh.heal()
        await it.caught_up()


async def test_five_nodes_lose_two_and_a_network_in_between(start: Start) -> None:
    mesh = Mesh()
    async with contextlib.AsyncExitStack() as stack:
        it = await _start_meshed(start, mesh, stack, 5)
        load = await stack.enter_async_context(load_on(it))
        await writes_succeed(load)
        leader = await it.leader()
        follower = next(id for id in it.cluster.ids if id != leader)
        it.cluster.kill(leader)
        it.cluster.kill(follower)
        await writes_succeed(load)
        it.cluster.start(leader, follower)
        await it.leader()
        left, right = it.cluster.ids[:2], it.cluster.ids[2:]
        for one in left:
            for other in right:
                mesh.cut(one, other)
        await it.leader(right)
        await writes_succeed(load)
        await mesh.heal()
        await load.stop()
        await it.caught_up()
        assert_linearizable(load)


async def test_all_nodes_killed_together_keep_every_acknowledged_write(three: Watched) -> None:
    for _ in range(2):
        async with load_on(three) as load:
            await writes_succeed(load, 100)
            revision = (await three.client.put("last", "acknowledged"))["revision"]
            for id in three.cluster.ids:
                three.cluster.kill(id)
            three.cluster.start()
            await writes_succeed(load)
        kv = await three.client.get("last")
        assert kv is not None
        assert kv["mod_revision"] == revision
        await three.client.delete("key/", prefix=True)


async def test_a_write_repeated_over_the_leaders_death_is_applied_once(three: Watched) -> None:
    writes = 150

    async def writer(number: int) -> None:
        async with KeyValueClient(three.cluster.endpoints, three.cluster.token, timeout_s=30, try_s=0.5) as client:
            session = await client.open_session()
            for count in range(writes):
                await session.put(f"count/{number}", str(count))

    writers = [asyncio.create_task(writer(number)) for number in range(4)]

    async def progressed() -> bool:
        return ((await three.client.get("count/0")) or {"version": 0})["version"] > 20

    await eventually(progressed, "the writers have begun")
    for _ in range(2):
        leader = await three.leader()
        three.cluster.kill(leader)
        await three.leader([id for id in three.cluster.ids if id != leader])
        three.cluster.start(leader)
    await asyncio.gather(*writers)
    versions = [kv["version"] for kv in (await three.client.range("count/", prefix=True))["kvs"]]
    assert versions == [writes] * 4


async def test_a_watch_neither_skips_nor_repeats_nor_goes_back_over_deaths_of_nodes(three: Watched) -> None:
    begun = (await three.client.put("seq/start", "x"))["revision"]
    seen: list[tuple[int, str]] = []

    async def follow() -> None:
        async with (
            KeyValueClient(three.cluster.endpoints, three.cluster.token) as client,
            aclosing(client.watch("seq/", prefix=True, from_revision=begun + 1)) as events,
        ):
            async for event in events:
                seen.append((event["mod_revision"], event["value"]))
                if event["value"] == "end":
                    return

    watching = asyncio.create_task(follow())
    session = await three.client.open_session()
    written: list[tuple[int, str]] = []
    for count in range(300):
        if count in {80, 200}:
            victim = three.cluster.ids[0] if count == 80 else await three.leader()
            three.cluster.kill(victim)
            three.cluster.start(victim)
        written.append(((await session.put("seq/k", str(count)))["revision"], str(count)))
    written.append(((await session.put("seq/k", "end"))["revision"], "end"))
    await asyncio.wait_for(watching, 30)
    assert seen == written


async def test_every_node_tells_what_is_left_of_a_lease(three: Watched) -> None:
    await three.client.call("lease/grant", {"ttl_s": 1000, "id": 7})
    headers = {"Authorization": f"Bearer {three.cluster.token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for url in three.cluster.endpoints:

            async def counted(url: str = url) -> bool:
                async with http.post(f"{url}/v3/lease/timetolive", json={"ID": "7"}) as answer:
                    left = await answer.json(content_type=None)
                async with http.get(f"{url}/v1/kv/leases") as answer:
                    ours = (await answer.json(content_type=None))["leases"][0]
                return left["grantedTTL"] == "1000" and int(left["TTL"]) < 1000 and ours.get("remaining_s", 1000) < 1000

            await eventually(counted, f"{url} counts the lease's time")


async def test_lost_lease_holder_gives_up_the_lock_and_its_time_survives_the_leader(three: Watched) -> None:
    granted = await three.client.call("lease/grant", {"ttl_s": 2})
    lease = granted["id"]
    await three.client.put("lock", "holder", lease=lease)
    started = time.monotonic()
    while time.monotonic() - started < 3.0:  # kept alive past its time, over a change of the leader
        await three.client.call("lease/keepalive", {"id": lease}, repeat=True)
        if time.monotonic() - started < 0.3:
            await three.client.call("transfer", {})
        await asyncio.sleep(0.2)
    assert await three.client.get("lock") is not None
    three.cluster.kill(await three.leader())
    released = time.monotonic()

    async def gone() -> bool:
        return await three.client.get("lock") is None

    await eventually(gone, "the lock of the lost holder is free")
    assert time.monotonic() - released >= 1.5
    with pytest.raises(LostLease):
        await three.client.call("lease/keepalive", {"id": lease})
    with pytest.raises(LostLease):
        await three.client.put("lock", "too late", lease=lease)


async def test_watch_from_a_forgotten_revision_says_where_the_past_begins(three: Watched) -> None:
    for count in range(10):
        last = (await three.client.put("k", str(count)))["revision"]
    await three.client.call("compact", {"revision": last - 3})
    with pytest.raises(CompactedRevision):
        await three.client.get("k", revision=2)  # linearizable, so that the node that the watch asks next knows it too
    with pytest.raises(CompactedRevision) as refused:
        async for _ in three.client.watch("k", from_revision=2):
            pass
    assert refused.value.facts["compacted_revision"] == last - 3


async def _start_meshed(start: Start, mesh: Mesh, stack: contextlib.AsyncExitStack, nodes: int) -> Watched:
    """Start a cluster whose nodes reach each other through the mesh only."""
    return await start(nodes, peer_address=mesh.peer_address, before_start=lambda: stack.enter_async_context(mesh))
