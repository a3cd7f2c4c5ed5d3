"""What is next for a move, and which moves may be under way: pure decisions."""

from collections import Counter
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control.states import a_state, measures_of
from denizen.control.admission import cleaned_first, to_begin, to_hasten
from denizen.control.commands import Committed, GiveUp, Reopened, StageCommand, StartRebalance, Verified
from denizen.control.machine import decide
from denizen.control.plan import BalanceBy
from denizen.control.planner import plan_moves, plan_rebalance
from denizen.control.stages import HOLDING, Do, Facts, Wait, next_step
from denizen.control.state import ENDED, MoveRecord, Settings, Stage
from denizen.moving.move import Head, Prepared, Verdict, Verification
from denizen.sharding.ids import Bucket, Epoch, Sequence, ShardId

NOW = 1_000_000
SETTINGS = Settings(hold_budget_ms=100, grace_s=5)


def a_move(stage: Stage, **more) -> MoveRecord:
    fenced = stage in HOLDING or stage in (Stage.COMMITTED, Stage.CLEANING)
    return MoveRecord(
        id=UUID(int=1),
        rebalance=UUID(int=2),
        bucket=Bucket(7),
        source=ShardId("s1"),
        target=ShardId("s2"),
        users=1,
        bytes=1,
        stage=stage,
        attempt=1,
        epoch=Epoch(1),
        begun_ms=NOW,
        since_ms=NOW,
        fence_epoch=Epoch(2) if fenced else None,
        fenced_ms=NOW,
        **more,
    )


def verified(verdict: Verdict) -> Verification:
    return Verification(verdict, Head(Sequence(3), 5), () if verdict is Verdict.EQUAL else ("users: 3 and 4",))


def step(move: MoveRecord, facts: Facts, now_ms: int = NOW, *, paused: bool = False):
    return next_step(move, facts, SETTINGS, now_ms, paused=paused)


unhurried = settings(deadline=None, max_examples=50)

facts = st.builds(
    Facts,
    prepared=st.none() | st.just(Prepared(1, 1)),
    copied=st.booleans(),
    missing=st.none() | st.integers(0, 2_000),
    fenced=st.booleans(),
    verification=st.none() | st.sampled_from(list(Verdict)).map(verified),
    opened=st.booleans(),
    closed=st.booleans(),
    not_closed=st.booleans(),
    barred=st.none() | st.booleans(),
    reopened=st.booleans(),
    cleaned=st.booleans(),
)


@unhurried
@given(st.sampled_from(sorted(HOLDING)), facts, st.integers(0, 10_000), st.booleans(), st.booleans())
def test_nothing_waits_while_writes_are_held(stage, known, later, paused, may_be_open):
    move = a_move(stage, may_be_open=may_be_open)
    assert not isinstance(step(move, known, NOW + later, paused=paused), Wait)


@unhurried
@given(facts, st.integers(0, 10_000))
def test_the_target_opens_only_after_the_log_says_verified(known, later):
    for stage in Stage:
        if stage not in ENDED | {Stage.VERIFIED}:
            assert step(a_move(stage), replace(known, aborted=True), NOW + later) is not Do.OPEN


@unhurried
@given(facts, st.integers(0, 10_000))
def test_the_source_is_closed_before_the_map_says_where_the_bucket_is_now(known, later):
    turned_back = step(a_move(Stage.RELEASING, may_be_open=True), known, NOW + later)
    for said, is_open in (
        (step(a_move(Stage.VERIFIED), known, NOW + later), known.opened),
        (turned_back, known.barred is False),
    ):
        if isinstance(said, Committed):
            assert is_open
            assert known.closed or known.not_closed
        elif is_open:
            assert said is Do.CLOSE


def test_a_source_that_does_not_answer_is_closed_after_the_commit():
    assert isinstance(step(a_move(Stage.VERIFIED), Facts(opened=True, not_closed=True)), Committed)
    assert step(a_move(Stage.COMMITTED), Facts()) is Do.CLOSE


@unhurried
@given(facts, st.integers(0, 100))
def test_verified_is_said_only_of_a_fenced_source_and_equal_copies(known, later):
    said = step(a_move(Stage.FENCED), replace(known, opened=False), NOW + later)
    if isinstance(said, Verified):
        assert known.fenced
        assert known.verification is not None
        assert known.verification.verdict is Verdict.EQUAL


@unhurried
@given(facts)
def test_the_source_is_reopened_only_when_the_target_cannot_open(known):
    said = step(a_move(Stage.RELEASING, may_be_open=True), known)
    if said is Do.REOPEN or isinstance(said, Reopened):
        assert known.barred is True
    if known.barred is False:
        assert said is Do.CLOSE or isinstance(said, Committed), "a target that is open is rolled forward"


def test_a_target_that_was_never_allowed_to_open_is_not_asked():
    assert step(a_move(Stage.RELEASING, may_be_open=False), Facts()) is Do.REOPEN


@pytest.mark.parametrize("stage", [Stage.PLANNED, Stage.COPYING, Stage.TAILING, Stage.COMMITTED, Stage.CLEANING])
def test_a_pause_stops_what_holds_no_writes(stage):
    assert step(a_move(stage), Facts(closed=True), paused=True) == Wait()


def test_a_fence_past_its_budget_is_given_up_and_tried_again_later_each_time():
    first = step(a_move(Stage.FENCED), Facts(), NOW + 101)
    third = step(a_move(Stage.FENCED, holds=2), Facts(), NOW + 101)
    assert isinstance(first, GiveUp)
    assert isinstance(third, GiveUp)
    assert not first.fail
    assert NOW < first.not_before_ms < third.not_before_ms


def test_a_difference_fails_the_move_and_says_what_differs():
    said = step(a_move(Stage.FENCED), Facts(fenced=True, verification=verified(Verdict.DIFFERENT)))
    assert isinstance(said, GiveUp)
    assert said.fail
    assert "users: 3 and 4" in said.reason


def test_writes_that_outrun_the_tail_are_never_fenced():
    assert step(a_move(Stage.TAILING), Facts(missing=501)) is Do.TAIL
    assert isinstance(step(a_move(Stage.TAILING), Facts(missing=500)), StageCommand)


def test_the_source_keeps_its_copy_for_the_grace_unless_it_is_in_the_way():
    assert step(a_move(Stage.COMMITTED), Facts()) is Do.CLOSE
    assert step(a_move(Stage.COMMITTED), Facts(closed=True)) == Wait(NOW + 5_000)
    assert isinstance(step(a_move(Stage.COMMITTED, hasty=True), Facts(closed=True)), StageCommand)


@unhurried
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 3))
def test_no_server_has_more_moves_than_the_cap(cap, owners, added):
    state = a_state(owners, added)
    state = replace(state, settings=replace(state.settings, moves_per_server=cap))
    plan = plan_rebalance(state, measures_of(50, 1), BalanceBy.USERS)
    state, _ = decide(state, StartRebalance(at_ms=1, plan=plan))
    busy = Counter(shard for move in to_begin(state) for shard in (move.source, move.target))
    assert busy
    assert max(busy.values()) == cap


def test_a_move_back_waits_for_the_clean_up_of_the_first_which_hastens():
    state = a_state(2)
    first = replace(a_move(Stage.COMMITTED), id=uuid4(), source=ShardId("s2"), target=ShardId("s1"))
    state = replace(state, moves={first.id: first})
    plan = plan_moves(state, {}, [(Bucket(7), ShardId("s2")), (Bucket(8), ShardId("s2"))])
    state, _ = decide(state, StartRebalance(at_ms=1, plan=plan))
    assert [planned.bucket for planned in to_begin(state)] == [8]
    assert to_hasten(state) == [first]
    assert cleaned_first(state, plan.moves[0]) is first
