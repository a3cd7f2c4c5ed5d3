"""Nodes together, in one process, on real sockets and disks."""

import asyncio
import shutil
from dataclasses import replace

import pytest
from raft_cluster import PATIENT, SETTINGS, Cluster, Recorder, eventually, free_ports

from denizen.raft import (
    BadSettings,
    ChangeRefused,
    CommandFailed,
    LogDamaged,
    Node,
    NoLeader,
    NotMember,
    OutcomeUnknown,
    Overloaded,
    SessionExpired,
    SessionRequest,
    Settings,
    Stopped,
    TooLarge,
    WrongDirectory,
)


@pytest.mark.parametrize("count", [1, 3, 5])
async def test_commands_proposed_anywhere_are_applied_everywhere_in_one_order(tmp_path, count):
    async with Cluster(tmp_path, count) as cluster:
        await cluster.leader()
        nodes = list(cluster.nodes.values())
        results = await asyncio.gather(*(nodes[at % count].propose(b"%d" % at) for at in range(200)))
        assert sorted(results) == list(range(1, 201))
        await cluster.converge()
        assert len(set(cluster.machines[1].commands)) == 200


async def test_a_read_on_any_node_sees_what_was_answered_before(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        for at in range(1, 20):
            await cluster.nodes[1 + at % 3].propose(b"x")
            for id in (1, 2, 3):
                await cluster.nodes[id].read()
                assert len(cluster.machines[id].commands) >= at


async def test_errors_say_what_happened(tmp_path):
    async with Cluster(tmp_path, 3, replace(SETTINGS, command_bytes_max=1000)) as cluster:
        for node in (await cluster.leader(), await cluster.follower()):
            with pytest.raises(CommandFailed, match="refused, as it asked for"):
                await node.propose(b"refuse me")
            with pytest.raises(TooLarge, match="at most 1000"):
                await node.propose(b"x" * 1001)
        await cluster.nodes[1].stop()
        with pytest.raises(Stopped):
            await cluster.nodes[1].propose(b"x")


async def test_many_large_commands_and_results_pass_between_nodes(tmp_path):
    async with Cluster(tmp_path, 3, PATIENT) as cluster:
        follower = await cluster.follower()
        assert len(await asyncio.gather(*(follower.propose(b"x" * 1_000_000) for _ in range(40)))) == 40
        results = await asyncio.gather(*(follower.propose(b"answer bytes 1000000") for _ in range(40)))
        assert [len(result) for result in results] == [1_000_000] * 40
        with pytest.raises(CommandFailed, match="applied, but its result of 9000000 bytes"):
            await follower.propose(b"answer bytes 9000000")
        with pytest.raises(CommandFailed, match="applied, but its result cannot be sent"):
            await follower.propose(b"answer an object")


async def test_without_a_majority_nothing_is_answered_and_errors_are_honest(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        for id in cluster.nodes:
            if id != leader.id:
                await cluster.stop(id)
        with pytest.raises((OutcomeUnknown, NoLeader)):
            await leader.propose(b"x", timeout_s=1)
        with pytest.raises(NoLeader):
            await leader.read(timeout_s=0.5)
        await eventually(lambda: not leader.is_leader)
        with pytest.raises(NoLeader):
            await leader.propose(b"y", timeout_s=0.5)


async def test_a_dead_leader_is_replaced_and_nothing_answered_is_lost(tmp_path):
    async with Cluster(tmp_path, 5) as cluster:
        answered = []
        for round in range(3):
            leader = await cluster.leader()
            for at in range(20):
                command = b"%d.%d" % (round, at)
                await leader.propose(command)
                answered.append(command)
            await cluster.stop(leader.id)
            if round:
                await cluster.start(leader.id)
        await cluster.leader()
        await cluster.converge(answered)


async def test_all_restart_together_and_committed_commands_stay(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        commands = [b"%d" % at for at in range(50)]
        for command in commands:
            await cluster.nodes[1].propose(command)
        await asyncio.gather(*(cluster.stop(id) for id in cluster.addresses))
        await asyncio.gather(*(cluster.start(id) for id in cluster.addresses))
        await cluster.nodes[2].read()
        assert cluster.machines[2].commands == commands
        await cluster.converge(commands)


async def test_an_old_leader_in_a_minority_serves_no_read_and_rejoins(tmp_path):
    async with Cluster(tmp_path, 5, wires=True) as cluster:
        old = await cluster.leader()
        await old.propose(b"before")
        majority = set(list(set(cluster.nodes) - {old.id})[:4])
        cluster.cut({old.id}, majority)
        new = await cluster.leader(majority)
        await new.propose(b"after")
        with pytest.raises(NoLeader):
            await old.read(timeout_s=0.5)
        assert cluster.machines[old.id].commands == [b"before"]
        cluster.heal()
        await cluster.converge([b"before", b"after"])
        await old.read()


async def test_a_leader_that_sends_but_does_not_hear_steps_down(tmp_path):
    async with Cluster(tmp_path, 3, wires=True) as cluster:
        deaf = await cluster.leader()
        others = set(cluster.nodes) - {deaf.id}
        cluster.cut(others, {deaf.id}, one_way=True)
        await eventually(lambda: not deaf.is_leader)
        cluster.heal()
        leader = await cluster.leader()
        assert await leader.propose(b"x") == 1


async def test_a_node_cut_off_for_long_rejoins_without_raising_the_term(tmp_path):
    async with Cluster(tmp_path, 3, wires=True) as cluster:
        leader = await cluster.leader()
        alone = await cluster.follower()
        cluster.cut({alone.id}, set(cluster.nodes) - {alone.id})
        term = leader.status().term
        await eventually(lambda: alone.status().role == "pre_candidate")
        steps = alone.status().metrics["steps"]
        await eventually(lambda: alone.status().metrics["steps"] > steps + 200)
        cluster.heal()
        await leader.propose(b"x")
        await cluster.converge([b"x"])
        assert leader.is_leader
        assert leader.status().term == term


async def test_a_session_applies_a_repeated_command_once(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        node = await cluster.follower()
        session = await node.open_session()
        request = session.request()
        first = await node.propose(b"once", session=request)
        again = await cluster.nodes[1].propose(b"once", session=request)
        assert first == again == 1
        await cluster.converge([b"once"])
        failed = session.request()
        for _ in range(2):
            with pytest.raises(CommandFailed):
                await node.propose(b"refuse me", session=failed)
        with pytest.raises(SessionExpired):
            await node.propose(b"x", session=SessionRequest(999_999, 1, 1))


async def test_sessions_survive_the_leaders_death_and_a_snapshot(tmp_path):
    async with Cluster(tmp_path, 3, replace(SETTINGS, snapshot_trailing_entries=0)) as cluster:
        leader = await cluster.leader()
        session = await leader.open_session()
        request = session.request()
        assert await leader.propose(b"once", session=request) == 1
        for node in cluster.nodes.values():
            await node.read()
            await node.snapshot()
        await asyncio.gather(*(cluster.stop(id) for id in cluster.addresses))
        await asyncio.gather(*(cluster.start(id) for id in cluster.addresses))
        assert await cluster.nodes[2].propose(b"once", session=request) == 1
        await cluster.converge([b"once"])


async def test_under_load_a_client_with_a_session_outlives_leaders_and_each_command_is_applied_once(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.leader()

        sessions = [await cluster.nodes[1].open_session() for _ in range(10)]

        async def client(name: int) -> None:
            session = sessions[name]
            for at in range(30):
                command, request = b"%d.%d" % (name, at), session.request()
                while True:
                    node = next(node for node in cluster.nodes.values() if node.is_running)
                    try:
                        await node.propose(command, session=request)
                        session.settle(request)
                        break
                    except (OutcomeUnknown, NoLeader, Stopped):
                        await asyncio.sleep(0.02)

        async def killer() -> None:
            for _ in range(3):
                leader = await cluster.leader()
                await cluster.stop(leader.id)
                await cluster.leader()
                await cluster.start(leader.id)

        await asyncio.gather(killer(), *(client(name) for name in range(10)))
        await cluster.converge()
        commands = cluster.machines[1].commands
        assert len(commands) == len(set(commands)) == 300


async def test_a_follower_far_behind_gets_a_snapshot_and_goes_on_from_it(tmp_path):
    settings = replace(SETTINGS, snapshot_entries=50, snapshot_trailing_entries=5, segment_bytes=64 << 10)
    async with Cluster(tmp_path, 3, settings) as cluster:
        await cluster.leader()
        behind = await cluster.follower()
        await behind.propose(b"x" * 1000)
        await cluster.stop(behind.id)
        leader = await cluster.leader()
        commands = [b"x" * 1000] + [b"%d" % at + b"y" * 1000 for at in range(400)]
        for at in range(0, 400, 40):
            await asyncio.gather(*(leader.propose(command) for command in commands[1 + at : 41 + at]))
        await eventually(lambda: leader.status().first_index > 300)
        assert len(list((tmp_path / str(leader.id) / "log").glob("*.wal"))) < 8, "old segments are deleted"
        again = await cluster.start(behind.id)
        await cluster.converge(commands)
        assert again.status().metrics["snapshots_restored"] >= 1
        await again.propose(b"more")
        await cluster.stop(behind.id)
        await cluster.start(behind.id)
        await cluster.converge([*commands, b"more"])


async def test_a_snapshot_is_made_after_so_many_bytes(tmp_path):
    async with Cluster(tmp_path, 1, replace(SETTINGS, snapshot_bytes=100_000)) as cluster:
        for _ in range(25):
            await cluster.nodes[1].propose(b"x" * 10_000)
        await eventually(lambda: cluster.nodes[1].status().metrics["snapshots_made"] == 2)


async def test_a_member_is_added_as_a_learner_then_promoted_then_removed(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        commands = [b"%d" % at for at in range(100)]
        for command in commands:
            await cluster.nodes[1].propose(command)
        id = await cluster.join()
        new = cluster.nodes[id]
        with pytest.raises(NotMember):
            await new.propose(b"not yet")
        follower = await cluster.follower()
        await follower.add_learner(id, cluster.addresses[id])
        await eventually(lambda: cluster.machines[id].commands == commands)
        assert new.status().role == "learner"
        await follower.promote(id)
        assert id in follower.status().voters
        assert await new.propose(b"from the new one") == 101
        await follower.remove(id)
        await eventually(lambda: id not in follower.status().configuration.members)
        with pytest.raises((NoLeader, NotMember, OutcomeUnknown)):
            await new.propose(b"not any more", timeout_s=0.5)
        assert await follower.propose(b"still three") == 102


async def test_a_change_that_names_the_wrong_node_leaves_no_trace(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        node = await cluster.follower()
        before = node.status()
        for change in (
            node.promote(7),
            node.remove(7),
            node.add_learner(1, "127.0.0.1:1"),
            node.add_learner(0, "127.0.0.1:1"),
            node.add_learner(7, "nowhere"),
            node.add_learner(7, "127.0.0.1:99999"),
            node.transfer_leadership(-1),
        ):
            with pytest.raises(ChangeRefused):
                await change
        await node.read()
        after = node.status()
        assert (after.configuration, after.addresses) == (before.configuration, before.addresses)


async def test_promoting_again_goes_on_waiting(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        id = await cluster.join()
        node = cluster.nodes[1]
        await node.add_learner(9, f"127.0.0.1:{free_ports(1)[0]}")
        for _ in range(2):  # nobody is there to catch up
            with pytest.raises(OutcomeUnknown, match="has not caught up yet"):
                await node.promote(9, timeout_s=1)
        await node.remove(9)
        await node.add_learner(id, cluster.addresses[id])
        await node.promote(id)


async def test_a_removed_leader_steps_down_and_the_rest_goes_on(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        old = await cluster.leader()
        await old.propose(b"1")
        await old.remove(old.id)
        await eventually(lambda: not old.is_leader)
        rest = set(cluster.nodes) - {old.id}
        new = await cluster.leader(rest)
        assert await new.propose(b"2") == 2
        assert new.status().voters == tuple(sorted(rest))


async def test_a_joined_node_is_known_to_all_after_every_restart(tmp_path):
    async with Cluster(tmp_path, 3, replace(SETTINGS, snapshot_trailing_entries=0)) as cluster:
        id = await cluster.join()
        await cluster.nodes[1].add_learner(id, cluster.addresses[id])
        await cluster.nodes[1].promote(id)
        for node in cluster.nodes.values():
            await node.read()
            await node.snapshot()
        await asyncio.gather(*(cluster.stop(id) for id in cluster.addresses))
        founders = {other: cluster.addresses[other] for other in (1, 2, 3)}
        await asyncio.gather(*(cluster.start(other, peers=founders) for other in founders))
        await cluster.start(id, join=True)
        await cluster.nodes[id].propose(b"x")
        await cluster.converge([b"x"])


async def test_leadership_is_handed_over_on_request(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        for _ in range(3):
            old = await cluster.leader()
            target = next(id for id in cluster.nodes if id != old.id)
            await (await cluster.follower()).transfer_leadership(target)
            new = await cluster.leader()
            assert new.id == target
        await new.transfer_leadership()
        assert (await cluster.leader()).id != new.id


async def test_more_commands_than_the_queue_holds_are_refused_not_kept(tmp_path):
    async with Cluster(tmp_path, 3, replace(PATIENT, proposals_waiting_max=100)) as cluster:
        leader = await cluster.leader()
        outcomes = await asyncio.gather(*(leader.propose(b"x") for _ in range(300)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        assert len(refused) == 200
        await cluster.converge([b"x"] * 100)


async def test_lease_reads_answer_without_a_round(tmp_path):
    async with Cluster(tmp_path, 3, replace(SETTINGS, lease_reads=True)) as cluster:
        leader = await cluster.leader()
        await leader.propose(b"x")
        await leader.read()
        assert cluster.machines[leader.id].commands == [b"x"]


async def test_each_leader_is_counted_once(tmp_path):
    async with Cluster(tmp_path, 3, PATIENT) as cluster:
        old = await cluster.leader()
        before = {id: node.status() for id, node in cluster.nodes.items()}
        await old.transfer_leadership()
        await eventually(lambda: all(node.leader not in {None, old.id} for node in cluster.nodes.values()))
        for id, node in cluster.nodes.items():
            now = node.status()
            assert 1 <= before[id].metrics["leadership_changes"] <= before[id].term
            rise = now.metrics["leadership_changes"] - before[id].metrics["leadership_changes"]
            assert 1 <= rise <= now.term - before[id].term


async def test_a_directory_belongs_to_one_node_and_one_process(tmp_path):
    addresses = {1: f"127.0.0.1:{free_ports(1)[0]}"}
    async with Node(1, tmp_path, addresses, Recorder(), SETTINGS) as node:
        await node.propose(b"x")
        with pytest.raises(WrongDirectory, match="in use"):
            await Node(1, tmp_path, addresses, Recorder(), SETTINGS).start()
    with pytest.raises(WrongDirectory, match="belongs to node 1"):
        await Node(2, tmp_path, {2: "127.0.0.1:1"}, Recorder(), SETTINGS).start()
    with pytest.raises(WrongDirectory, match="of cluster 'raft'"):
        await Node(1, tmp_path, addresses, Recorder(), replace(SETTINGS, cluster="other")).start()
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(LogDamaged, match="missing"):
        await Node(1, tmp_path, addresses, Recorder(), SETTINGS).start()


async def test_a_wiped_node_does_not_go_on_under_its_old_id(tmp_path):
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.leader()
        wiped = await cluster.follower()
        await wiped.propose(b"x")
        await cluster.converge()
        await cluster.stop(wiped.id)
        shutil.rmtree(tmp_path / str(wiped.id))
        again = await cluster.start(wiped.id)
        leader = next(node for node in cluster.nodes.values() if node.is_leader)
        await eventually(lambda: "forgot its votes" in str(again.status().unreachable))
        assert await leader.propose(b"y") == 2
        assert cluster.machines[wiped.id].commands == []


@pytest.mark.parametrize(
    "wrong",
    [
        Settings(),
        Settings(secret=b"short"),
        replace(SETTINGS, heartbeat_ms=100),
        replace(SETTINGS, tick_ms=0),
        replace(SETTINGS, segment_bytes=1),
        replace(SETTINGS, command_bytes_max=0),
        replace(SETTINGS, snapshot_entries=0),
    ],
)
async def test_settings_that_cannot_work_are_refused(tmp_path, wrong):
    with pytest.raises(BadSettings):
        await Node(1, tmp_path, {1: "127.0.0.1:1"}, Recorder(), wrong).start()


async def test_a_peer_without_an_address_is_refused(tmp_path):
    with pytest.raises(BadSettings, match="node 2: 'nowhere' is not host:port"):
        await Node(1, tmp_path, {1: "127.0.0.1:1", 2: "nowhere"}, Recorder(), SETTINGS).start()


async def test_stopping_leaves_no_task_and_no_thread(tmp_path):
    import threading

    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.nodes[1].propose(b"x")
    await eventually(lambda: asyncio.all_tasks() == tasks)
    assert [t.name for t in threading.enumerate() if t not in threads and "raft" in t.name] == []
