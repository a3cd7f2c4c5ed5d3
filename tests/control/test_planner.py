"""Plans: even afterwards, with no more movement than it takes, and the same for the same input."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control.states import a_state, measures_of
from denizen.control.balance import loads
from denizen.control.commands import StartRebalance
from denizen.control.machine import decide
from denizen.control.plan import BalanceBy
from denizen.control.planner import plan_moves, plan_rebalance
from denizen.control.ports import BucketMeasures
from denizen.control.state import ControlState, RebalanceStatus, ShardStatus
from denizen.errors import Refused
from denizen.sharding.ids import BUCKETS, Bucket

hashed = st.integers(20, 600).flatmap(lambda mean: st.tuples(st.just(mean), st.integers(0, 2**32)))
clusters = st.tuples(st.integers(1, 12), st.integers(0, 3), st.integers(0, 3))


def held_after(state, plan, measures, figure):
    """What each shard holds when the plan is done."""
    targets = {move.bucket: move.target for move in plan.moves}
    held = dict.fromkeys(state.shards, 0)
    for bucket in range(BUCKETS):
        held[targets.get(bucket, state.map.shard_of(Bucket(bucket)))] += figure(measures.get(bucket))
    return held


def users(measures: BucketMeasures | None) -> int:
    return measures.users if measures else 0


def least_bytes(state, measures):
    """The bytes that must move at least: what draining shards hold, and what others have above their part."""
    held = dict.fromkeys(state.shards, 0)
    for bucket in range(BUCKETS):
        held[state.map.shard_of(Bucket(bucket))] += measures[bucket].bytes
    active = {id for id, shard in state.shards.items() if shard.status is ShardStatus.ACTIVE}
    fair = sum(held.values()) / len(active)
    return sum(max(0, bytes_ - fair) if id in active else bytes_ for id, bytes_ in held.items())


@settings(max_examples=40, deadline=None)
@given(clusters, hashed)
def test_users_are_even_afterwards_and_little_is_moved(cluster, load):
    owners, added, draining = cluster
    draining = min(draining, owners + added - 1, owners)
    state, measures = a_state(owners, added, draining), measures_of(*load)
    plan = plan_rebalance(state, measures, BalanceBy.USERS)
    held = held_after(state, plan, measures, users)
    active = [held[id] for id, shard in state.shards.items() if shard.status is ShardStatus.ACTIVE]
    assert max(active) / (sum(active) / len(active)) <= 1.03
    assert all(held[id] == 0 for id, shard in state.shards.items() if shard.status is ShardStatus.DRAINING)
    assert plan.bytes <= least_bytes(state, measures) * 1.02 + max(m.bytes for m in measures.values())


@settings(max_examples=20, deadline=None)
@given(clusters, hashed)
def test_the_same_input_gives_the_same_plan_and_it_can_be_started(cluster, load):
    owners, added, _ = cluster
    state, measures = a_state(owners, added, 0), measures_of(*load)
    plan = plan_rebalance(state, measures, BalanceBy.USERS)
    assert plan == plan_rebalance(state, dict(reversed(measures.items())), BalanceBy.USERS)
    started, _ = decide(state, StartRebalance(at_ms=1, plan=plan))
    assert (started.rebalance is not None) == bool(plan.moves)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), hashed)
def test_every_move_brings_two_shards_nearer(owners, load):
    state, measures = a_state(owners, 1, 0), measures_of(*load)
    plan, weighed = plan_rebalance(state, measures, BalanceBy.USERS), loads(measures, BalanceBy.USERS)
    held = dict.fromkeys(state.shards, 0.0)
    for bucket in range(BUCKETS):
        held[state.map.shard_of(Bucket(bucket))] += weighed[bucket]
    for move in plan.moves:
        apart = held[move.source] - held[move.target]
        held[move.source] -= weighed[move.bucket]
        held[move.target] += weighed[move.bucket]
        assert abs(held[move.source] - held[move.target]) < apart


@pytest.mark.parametrize("by", list(BalanceBy))
def test_balance_by_what_is_asked_for(by):
    few, many = 1_000, 9_000
    heavy = {
        Bucket(n): BucketMeasures(*((many, few * 1_024, 1.0) if n < 2048 else (few, many * 1_024, 9.0)))
        for n in range(BUCKETS)
    }
    state = a_state(2, 0, 0)
    plan = plan_rebalance(state, heavy, by)
    source = "s1" if by is BalanceBy.USERS else "s2"
    assert plan.moves
    assert {move.source for move in plan.moves} == {source}
    assert plan.before.imbalance == pytest.approx(1.8)
    assert plan.after.imbalance < 1.03


def test_weights_count():
    state, measures = a_state(2, 1, 0), measures_of(100, 1)
    state = replace(state, shards=state.shards | {"s3": replace(state.shards["s3"], weight=2.0)})
    plan = plan_rebalance(state, measures, BalanceBy.USERS)
    held = held_after(state, plan, measures, users)
    assert held["s3"] / sum(held.values()) == pytest.approx(0.5, abs=0.005)


def test_adding_the_ninth_shard_moves_a_ninth():
    plan = plan_rebalance(a_state(8, 1, 0), {}, BalanceBy.USERS)
    assert len(plan.moves) == pytest.approx(455, abs=8)


@pytest.mark.parametrize("by", list(BalanceBy))
def test_a_handful_of_users_is_not_what_a_young_deployment_is_evened_by(by):
    handful = {Bucket(n): BucketMeasures(2, 1_500, 0.05) for n in (7, 99, 2_500)}
    plan = plan_rebalance(a_state(4, 1, 0), handful, by)
    assert len(plan.moves) == pytest.approx(BUCKETS / 5, abs=12)
    assert {move.target for move in plan.moves} == {"s5"}
    assert {move.source for move in plan.moves} == {"s1", "s2", "s3", "s4"}
    assert plan.before.imbalance == pytest.approx(1.25, abs=0.01)
    assert plan.after.imbalance < 1.01


def test_even_shards_are_left_alone():
    assert plan_rebalance(a_state(4, 0, 0), measures_of(500, 2), BalanceBy.USERS).moves == ()


def test_no_plan_while_a_shard_is_degraded_or_joining_or_a_rebalance_runs():
    state = a_state(2, 1, 0)
    with pytest.raises(Refused, match="degraded"):
        plan_rebalance(state, {}, BalanceBy.USERS, {"s1": "does not answer"})
    joining = replace(state.shards["s3"], status=ShardStatus.JOINING)
    with pytest.raises(Refused, match="joining"):
        plan_rebalance(replace(state, shards=state.shards | {"s3": joining}), {}, BalanceBy.USERS)
    plan = plan_rebalance(state, {}, BalanceBy.USERS)
    running, _ = decide(state, StartRebalance(at_ms=1, plan=plan))
    assert running.rebalance.status is RebalanceStatus.RUNNING
    with pytest.raises(Refused, match="under way"):
        plan_rebalance(running, {}, BalanceBy.USERS)
    with pytest.raises(Refused, match="founded"):
        plan_rebalance(ControlState(), {}, BalanceBy.USERS)


def test_buckets_moved_by_hand_leave_and_reach_no_shard_that_does_not_answer():
    state, by_hand = a_state(3, 0, 0), [(Bucket(0), "s2")]
    for involved in ("s1", "s2"):
        with pytest.raises(Refused, match=f"shard {involved} is degraded: it does not answer"):
            plan_moves(state, {}, by_hand, {involved: "it does not answer"})
    assert plan_moves(state, {}, by_hand, {"s3": "it does not answer"}).moves


def test_buckets_moved_by_hand_are_checked():
    state = a_state(2, 0, 0)
    plan = plan_moves(state, {}, [(Bucket(0), "s2"), (Bucket(4095), "s2")])
    assert [(move.bucket, move.source, move.target) for move in plan.moves] == [(0, "s1", "s2")]
    for wish in [(Bucket(0), "s9")], [(Bucket(4096), "s2")], [(Bucket(1), "s2"), (Bucket(1), "s2")]:
        with pytest.raises(Refused):
            plan_moves(state, {}, wish)
