"""Runs with a purpose: one kind of trouble each, over some seeds."""

import pytest

from denizen.raft.sim import Options, Simulation

SEEDS = range(12)


def run(seed, **options):
    simulation = Simulation(seed, Options(**options), keep_lines=True)
    return simulation, simulation.run()


def test_clients_that_retry_after_the_leaders_death_have_their_commands_applied_once():
    retried = 0
    for seed in SEEDS:
        simulation, report = run(seed, faults={"crash": 3, "isolate_leader": 2, "heal": 4}, delicate=0.2, spares=0)
        entries = simulation.watch.ledger.entries
        commands = [entry.data for entry in entries if entry.data and entry.kind == 0]
        retried += len(commands) - len(set(commands))
        assert report.acknowledged <= len(set(commands))
    assert retried > 0, "some commands are in the log twice; that each counted once is what the run checked"


def test_leases_hold_under_pauses_and_partitions():
    reads = 0
    for seed in SEEDS:
        _, report = run(seed, lease_reads=True, faults={"pause": 5, "isolate_leader": 3, "transfer": 2, "heal": 4})
        reads += report.reads
    assert reads > 100


def test_small_snapshots_under_crashes_at_every_step_of_them():
    restored = 0
    for seed in SEEDS:
        simulation, _ = run(
            seed,
            faults={"crash": 3, "partition": 3, "heal": 3},
            snapshot_every=5,
            log_kept_entries=0,
            chunk_bytes=16,
            delicate=0.3,
            loss=0.05,
        )
        restored += sum("restored the snapshot" in line for line in simulation.trace.lines)
    assert restored > 5


def test_damaged_logs_on_a_minority_lose_nothing():
    damaged = 0
    for seed in SEEDS:
        simulation, _ = run(seed, founders=5, spares=0, faults={"damage": 4, "crash": 2, "crash_all": 1, "heal": 2})
        damaged += sum("is damaged" in line for line in simulation.trace.lines)
        assert all(node.disk.repair_until is None for node in simulation.nodes.values())
    assert damaged > 10


def test_members_are_replaced_under_load():
    changed = 0
    for seed in SEEDS:
        simulation, _ = run(seed, spares=3, faults={"change": 6, "heal": 2, "transfer": 1}, fault_every_us=50_000)
        changed += sum("outgoing (" in line and "outgoing ()" not in line for line in simulation.trace.lines)
    assert changed > 20


@pytest.mark.parametrize("founders", [1, 2, 4])
def test_clusters_of_unusual_size(founders):
    for seed in range(6):
        run(seed, founders=founders, spares=0, faults={"crash": 2, "pause": 1, "heal": 2})
