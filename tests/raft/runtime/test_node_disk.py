"""A node on a bad disk: it stops with a clear error and never acknowledges what is not durable; the others go on."""

import asyncio
import errno
import os
import threading
import time
from dataclasses import replace

import pytest
from raft_cluster import PATIENT, SETTINGS, Cluster, Recorder, eventually, free_ports
from raft_faults import Crash, FaultyDisk, flip

from denizen.raft import DiskFailed, LogDamaged, Node, OutcomeUnknown, RaftError
from denizen.raft.errors import NoLeader, Stopped

COMPACTING = replace(SETTINGS, snapshot_entries=30, snapshot_trailing_entries=0, segment_bytes=64 << 10)


class ThreadFaultyDisk(FaultyDisk):
    """Faulty only in the running node's two threads: the start and the handshakes find a good disk."""

    def _change(self) -> None:
        if threading.current_thread().name.startswith("raft"):
            super()._change()


@pytest.mark.parametrize("fault", ["fsync fails", "disk full"])
async def test_a_leader_whose_disk_fails_stops_and_the_others_go_on(tmp_path, fault):
    async with Cluster(tmp_path, 3) as cluster:
        disks = cluster.disks = {id: FaultyDisk() for id in cluster.addresses}
        for id in cluster.addresses:
            await cluster.stop(id)
            await cluster.start(id)
        leader = await cluster.leader()
        await leader.propose(b"before")
        if fault == "disk full":
            disks[leader.id].space = 10
        else:
            disks[leader.id].fail_sync = lambda: OSError(errno.EIO, "Input/output error")
        with pytest.raises((OutcomeUnknown, Stopped, NoLeader)):
            await leader.propose(b"during")
        cause = await leader.wait_stopped()
        assert isinstance(cause, DiskFailed)
        assert "start the node again" in str(cause)
        others = set(cluster.nodes) - {leader.id}
        new = await cluster.leader(others)
        await new.propose(b"after")
        cluster.disks = {}
        await cluster.start(leader.id)
        await cluster.converge()
        commands = cluster.machines[leader.id].commands
        assert commands[0] == b"before"
        assert commands[-1] == b"after"


async def test_a_damaged_node_does_not_start_and_is_replaced_by_a_new_member(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        commands = [b"%d" % at for at in range(30)]
        for command in commands:
            await cluster.nodes[1].propose(command)
        damaged = await cluster.follower()
        await cluster.stop(damaged.id)
        segment = next((tmp_path / str(damaged.id) / "log").glob("*.wal"))
        flip(segment, 300)
        with pytest.raises(LogDamaged, match="add it under a new id"):
            await cluster.start(damaged.id)
        leader = await cluster.leader()
        assert await leader.propose(b"two are enough") == 31
        await leader.remove(damaged.id)
        id = await cluster.join()
        await leader.add_learner(id, cluster.addresses[id])
        await leader.promote(id)
        await cluster.converge([*commands, b"two are enough"])
        assert leader.status().voters == tuple(sorted({1, 2, 3, 4} - {damaged.id}))


async def test_a_torn_tail_is_dropped_and_fetched_again(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.nodes[1].propose(b"x")
        await cluster.converge()
        torn = await cluster.follower()
        await cluster.stop(torn.id)
        segment = next((tmp_path / str(torn.id) / "log").glob("*.wal"))
        data = segment.read_bytes().rstrip(b"\x00")
        segment.write_bytes(data + b"half a record that no fsync was reported for")
        again = await cluster.start(torn.id)
        assert again.status().dropped_tail_bytes > 0
        await again.propose(b"y")
        await cluster.converge([b"x", b"y"])


async def test_a_kill_at_any_step_of_installing_a_snapshot_is_survived(tmp_path):
    async with Cluster(tmp_path, 3, COMPACTING) as cluster:
        await cluster.leader()
        behind = await cluster.follower()
        await behind.propose(b"first")
        await cluster.stop(behind.id)
        leader = await cluster.leader()
        sent = 0
        for crash_at in range(60):
            outcomes = await asyncio.gather(*(leader.propose(b"%d" % (sent + at) + b"x" * 3000) for at in range(40)))
            sent += len(outcomes)
            await eventually(lambda: leader.status().first_index > leader.applied - 40)
            disk = ThreadFaultyDisk()
            disk.crash_at = crash_at
            cluster.disks[behind.id] = disk
            node = await cluster.start(behind.id)
            done = asyncio.ensure_future(node.wait_stopped())
            await eventually(
                lambda: done.done() or cluster.machines[behind.id].commands == cluster.machines[leader.id].commands  # noqa: B023
            )
            if node.is_running:
                restored = node.status().metrics["snapshots_restored"]
                await node.stop()
                await done
                if restored:
                    break
                continue  # it was near enough to need no snapshot this time
            cause = await done
            assert isinstance(cause, RaftError)
            assert isinstance(cause.__cause__, Crash)
        else:
            pytest.fail("never finished")
        assert crash_at > 5
        cluster.disks.clear()
        await cluster.start(behind.id)
        await cluster.converge()


async def test_a_kill_at_any_step_of_saving_a_snapshot_is_survived(tmp_path):
    addresses = {1: f"127.0.0.1:{free_ports(1)[0]}"}
    commands: list[bytes] = []
    for crash_at in range(60):
        disk = ThreadFaultyDisk()
        machine = Recorder()
        node = Node(1, tmp_path, addresses, machine, COMPACTING, disk=disk)
        async with node:
            await node.read()
            assert machine.commands == commands
            for at in range(3):
                commands.append(b"%d.%d" % (crash_at, at))
                await node.propose(commands[-1])
            disk.changes, disk.crash_at = 0, crash_at
            try:
                await node.snapshot()
            except Stopped:
                continue
            disk.crash_at = None
            break
    else:
        pytest.fail("never finished")
    assert crash_at > 3


@pytest.mark.parametrize("unsafe", [False, True])
async def test_every_answer_waits_for_an_fsync_unless_told_otherwise(tmp_path, monkeypatch, unsafe):
    synced: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd))[1])
    settings = replace(SETTINGS, unsafe_no_fsync=unsafe)
    async with Node(1, tmp_path, {1: f"127.0.0.1:{free_ports(1)[0]}"}, Recorder(), settings) as node:
        await node.read()
        for _ in range(10):
            before = len(synced)
            await node.propose(b"x")
            assert len(synced) == (0 if unsafe else before + 1)


async def test_commands_that_arrive_during_an_fsync_share_the_next(tmp_path):
    disk = FaultyDisk()
    release = threading.Event()
    addresses = {1: f"127.0.0.1:{free_ports(1)[0]}"}
    async with Node(1, tmp_path, addresses, Recorder(), SETTINGS, disk=disk) as node:
        await node.propose(b"x")
        disk.fail_sync = lambda: None if release.wait(20) else OSError(errno.EIO, "never released")
        before = disk.syncs
        first = asyncio.ensure_future(node.propose(b"x"))
        await eventually(lambda: disk.syncs == before + 1)
        more = [asyncio.ensure_future(node.propose(b"x")) for _ in range(200)]
        await eventually(lambda: node.status().last_index >= 203)
        assert not first.done()
        release.set()
        assert await asyncio.gather(first, *more) == list(range(2, 203))
        assert disk.syncs == before + 2


async def test_a_slow_state_machine_does_not_cost_the_leadership(tmp_path):
    class Slow(Recorder):
        def apply(self, index: int, command: bytes) -> int:
            time.sleep(0.01)  # the work of a slow `apply`, which holds the loop
            return super().apply(index, command)

    async with Cluster(tmp_path, 3, PATIENT) as cluster:
        leader = await cluster.leader()
        term = leader.status().term
        leader._applier._machine = slow = Slow()
        results = await asyncio.gather(*(leader.propose(b"x") for _ in range(200)))
        assert sorted(results) == list(range(1, 201))
        assert (leader.is_leader, leader.status().term) == (True, term)
        assert len(slow.commands) == 200
