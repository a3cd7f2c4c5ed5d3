"""The state machine: what follows what, what is refused, and that repeating a command is harmless."""

from uuid import UUID, uuid4

import pytest

from control.states import a_state
from denizen import limits
from denizen.control.commands import (
    Aborted,
    Accepted,
    AddShard,
    BeginMove,
    CancelMove,
    CancelRebalance,
    ChangeSettings,
    Cleaned,
    CleanStarted,
    Command,
    Committed,
    CopyFinished,
    DrainShard,
    FenceIntended,
    Founded,
    GiveUp,
    HastenClean,
    JoinNode,
    KeepShard,
    PauseRebalance,
    Prepared,
    Refusal,
    RemoveShard,
    Reopened,
    ResumeRebalance,
    SetWeight,
    ShardReady,
    SkipMove,
    StageCommand,
    StartRebalance,
    TakeOver,
    Verified,
    decode_command,
    decode_reply,
    encode_command,
)
from denizen.control.machine import ControlMachine
from denizen.control.plan import PlannedMove
from denizen.control.planner import plan_moves
from denizen.control.ports import BucketMeasures
from denizen.control.state import ControlState, RebalanceStatus, ShardStatus, Stage, decode_state, encode_state
from denizen.operators.views import rebalance_document
from denizen.sharding.bucket_map import initial_map
from denizen.sharding.ids import Bucket, ShardId

TOKEN = UUID(int=7)


class Plane:
    """A machine and how tests speak to it."""

    def __init__(self, state: ControlState) -> None:
        self.machine = ControlMachine()
        self.machine.restore(encode_state(state))
        self.move = uuid4()
        self.index = 0

    @property
    def state(self) -> ControlState:
        return self.machine.state

    @property
    def record(self):
        return self.state.moves[self.move]

    def ask(self, command: Command):
        self.index += 1
        return decode_reply(self.machine.apply(self.index, encode_command(command)))

    def do(self, command: Command) -> None:
        reply = self.ask(command)
        assert isinstance(reply, Accepted), reply

    def refused(self, command: Command) -> str:
        before = self.state
        reply = self.ask(command)
        assert isinstance(reply, Refusal), reply
        assert self.state is before, "a refused command changes nothing"
        assert reply.detail[0].islower(), "a sentence that can follow a colon"
        assert len(reply.detail) > 15
        return reply.code

    def say(self, kind: type[StageCommand], **facts) -> StageCommand:
        return kind(at_ms=10, move=self.move, attempt=self.record.attempt, **facts)

    def run_to(self, stage: Stage, users: int = 0) -> "Plane":
        """A running rebalance of buckets 0 and 1 from s1 to s3, the first of which is at `stage`."""
        measures = {Bucket(bucket): BucketMeasures(users, 100 * users, 0.0) for bucket in range(2)}
        plan = plan_moves(self.state, measures, [(Bucket(0), ShardId("s3")), (Bucket(1), ShardId("s3"))])
        self.do(TakeOver(at_ms=1, token=TOKEN, node=1))
        self.do(StartRebalance(at_ms=2, plan=plan))
        self.go_on(plan.moves[0], stage)
        return self

    def go_on(self, planned: PlannedMove, stage: Stage) -> None:
        """Begin this move, and bring it to `stage`."""
        self.do(BeginMove(at_ms=3, executor=1, move=self.move, planned=planned))
        steps = [
            (Stage.COPYING, Prepared, {"events": 3, "bytes": 9}),
            (Stage.TAILING, CopyFinished, {}),
            (Stage.FENCED, FenceIntended, {}),
            (Stage.VERIFIED, Verified, {}),
            (Stage.COMMITTED, Committed, {"held_us": 5_000}),
            (Stage.CLEANING, CleanStarted, {}),
        ]
        for reached, kind, facts in steps:
            if self.record.stage is stage:
                break
            self.do(self.say(kind, **facts))
            assert self.record.stage is reached


@pytest.fixture
def plane() -> Plane:
    return Plane(a_state(2, 1))


def test_a_move_from_its_plan_to_its_end(plane):
    plane.run_to(Stage.FENCED)
    assert plane.record.fence_epoch == 2, "the fence's epoch is given out before the fence"
    assert plane.state.map.shard_of(Bucket(0)) == "s1"
    plane.do(plane.say(Verified))
    version = plane.state.map.version
    plane.do(plane.say(Committed, held_us=7_000))
    assert (plane.state.map.shard_of(Bucket(0)), plane.state.map.epoch_of(Bucket(0))) == ("s3", 3)
    assert plane.state.map.version == version + 1
    plane.do(plane.say(CleanStarted))
    plane.do(plane.say(Cleaned))
    assert plane.move not in plane.state.moves
    assert plane.state.ended[-1].stage is Stage.DONE
    assert plane.state.rebalance.holds_us == (7_000,)


def test_every_command_repeated_changes_nothing_more(plane):
    said = []
    ask = plane.ask
    plane.ask = lambda command: said.append(command) or ask(command)
    plane.run_to(Stage.CLEANING)
    plane.do(plane.say(Cleaned))
    plane.do(AddShard(at_ms=4, shard=ShardId("s4")))
    plane.do(ShardReady(at_ms=5, shard=ShardId("s4")))
    plane.do(SetWeight(at_ms=5, shard=ShardId("s4"), weight=2.0))
    plane.do(ChangeSettings(at_ms=6, grace_s=1))
    plane.do(JoinNode(at_ms=6, node=1, raft_address="a:1", address="a:2"))
    after = plane.state
    for command in said:
        reply = ask(command)
        assert isinstance(reply, Accepted | Refusal)
        assert not getattr(reply, "changed", False), command
    assert plane.state is after


def test_a_takeover_makes_everything_older_stale(plane):
    plane.run_to(Stage.TAILING)
    late = plane.say(FenceIntended)
    plane.do(TakeOver(at_ms=5, token=UUID(int=8), node=2))
    assert plane.refused(late) == "stale_attempt"
    assert plane.refused(begin_again(plane, executor=1)) == "superseded"
    plane.do(plane.say(FenceIntended))


def begin_again(plane, executor):
    return BeginMove(at_ms=4, executor=executor, move=uuid4(), planned=plane.state.rebalance.queue[0])


def test_a_fence_given_up_reopens_the_source_at_a_new_epoch_and_is_tried_again(plane):
    plane.run_to(Stage.VERIFIED)
    late = plane.say(Committed)
    plane.do(plane.say(GiveUp, reason="too long", fail=False, not_before_ms=99))
    assert plane.record.stage is Stage.RELEASING
    assert plane.record.may_be_open
    assert plane.refused(late) == "stale_attempt"
    plane.do(plane.say(Reopened))
    assert plane.record.stage is Stage.TAILING
    assert (plane.record.holds, plane.record.not_before_ms, plane.record.epoch) == (1, 99, 3)
    assert (plane.state.map.shard_of(Bucket(0)), plane.state.map.epoch_of(Bucket(0))) == ("s1", 3)
    plane.do(plane.say(FenceIntended))
    assert plane.record.fence_epoch == 4


def test_a_move_fails_after_too_many_fences(plane):
    plane.do(ChangeSettings(at_ms=1, holds_max=1))
    plane.run_to(Stage.FENCED)
    plane.do(plane.say(GiveUp, reason="too long", fail=False))
    plane.do(plane.say(Reopened))
    assert plane.record.stage is Stage.ABORTING
    plane.do(plane.say(Aborted))
    assert plane.state.ended[-1].stage is Stage.FAILED
    assert plane.state.rebalance.failed == 1


def test_a_target_found_open_is_rolled_forward_even_after_a_cancel(plane):
    plane.run_to(Stage.VERIFIED)
    plane.do(CancelMove(at_ms=9, move=plane.move))
    plane.do(plane.say(Committed))
    assert plane.state.map.shard_of(Bucket(0)) == "s3"


def test_a_target_that_was_never_allowed_to_open_cannot_be_committed(plane):
    plane.run_to(Stage.FENCED)
    plane.do(CancelMove(at_ms=9, move=plane.move))
    assert plane.refused(plane.say(Committed)) == "wrong_stage"


@pytest.mark.parametrize("stage", [Stage.PLANNED, Stage.COPYING, Stage.TAILING, Stage.FENCED, Stage.VERIFIED])
def test_cancel_before_the_commit_returns_to_the_source(plane, stage):
    plane.run_to(stage)
    plane.do(CancelRebalance(at_ms=9, rebalance=plane.state.rebalance.id))
    if stage in (Stage.FENCED, Stage.VERIFIED):
        plane.do(plane.say(Reopened))
    plane.do(plane.say(Aborted))
    assert plane.state.ended[-1].stage is Stage.CANCELLED
    assert plane.state.map.shard_of(Bucket(0)) == "s1"
    assert plane.state.rebalance.status is RebalanceStatus.CANCELLED
    assert plane.state.rebalance.cancelled == 2, "what had not begun counts too"


def test_after_the_commit_a_cancel_is_too_late(plane):
    plane.run_to(Stage.COMMITTED)
    assert plane.refused(CancelMove(at_ms=9, move=plane.move)) == "too_late"
    plane.do(HastenClean(at_ms=9, move=plane.move))
    assert plane.record.hasty


def test_a_bucket_has_one_move_and_goes_back_only_when_its_old_place_is_clean(plane):
    plane.run_to(Stage.TAILING)
    second = plane.state.rebalance.queue[0]
    plane.do(PauseRebalance(at_ms=4, rebalance=plane.state.rebalance.id))
    assert plane.refused(begin_again(plane, executor=1)) == "not_running"
    plane.do(ResumeRebalance(at_ms=4, rebalance=plane.state.rebalance.id))
    plane.do(SkipMove(at_ms=4, executor=1, planned=second))
    for kind in (FenceIntended, Verified, Committed):
        plane.do(plane.say(kind))
    assert plane.state.rebalance.status is RebalanceStatus.DONE
    back = plan_moves(plane.state, {}, [(Bucket(0), ShardId("s1"))])
    plane.do(StartRebalance(at_ms=5, plan=back))
    begin = BeginMove(at_ms=6, executor=1, move=uuid4(), planned=back.moves[0])
    assert plane.refused(begin) == "not_clean"
    plane.do(plane.say(CleanStarted))
    plane.do(plane.say(Cleaned))
    plane.do(begin)


def test_a_plan_that_does_not_fit_any_more_is_refused(plane):
    plan = plan_moves(plane.state, {}, [(Bucket(0), ShardId("s3"))])
    plane.run_to(Stage.COMMITTED)
    assert plane.refused(StartRebalance(at_ms=9, plan=plan)) in ("rebalance_under_way", "plan_stale")
    plane.do(CancelRebalance(at_ms=9, rebalance=plane.state.rebalance.id))
    assert plane.refused(StartRebalance(at_ms=9, plan=plan)) == "plan_stale"
    told = plane.ask(StartRebalance(at_ms=9, plan=plan)).detail
    assert "bucket 0 is with s3 and cannot move from s1 to s3" in told


def test_the_life_of_a_shard(plane):
    s4 = ShardId("s4")
    assert plane.refused(ShardReady(at_ms=1, shard=s4)) == "no_such_shard"
    plane.do(AddShard(at_ms=1, shard=s4))
    assert s4 not in plane.state.map.shards
    plane.do(ShardReady(at_ms=2, shard=s4))
    assert s4 in plane.state.map.shards, "gateways connect before the first bucket is there"
    assert plane.refused(RemoveShard(at_ms=3, shard=s4)) == "wrong_shard_status"
    plane.do(DrainShard(at_ms=3, shard=s4))
    assert plane.state.shards[s4].status is ShardStatus.DRAINED, "it owned nothing"
    version = plane.state.map.version
    plane.do(RemoveShard(at_ms=4, shard=s4))
    assert s4 not in plane.state.map.shards
    assert plane.state.map.version == version + 1
    assert plane.refused(AddShard(at_ms=5, shard=s4)) == "shard_exists"


def test_a_draining_shard_takes_nothing_and_is_drained_when_all_is_gone_and_clean(plane):
    plane.run_to(Stage.COMMITTED)
    plane.do(DrainShard(at_ms=5, shard=ShardId("s3")))
    assert plane.state.rebalance.queue == (), "what was to come to it does not come"
    assert (plane.state.rebalance.committed, plane.state.rebalance.cancelled) == (1, 1)
    assert plane.state.shards[ShardId("s3")].status is ShardStatus.DRAINING
    plane.do(KeepShard(at_ms=5, shard=ShardId("s3")))
    plane.do(DrainShard(at_ms=5, shard=ShardId("s1")))
    assert plane.refused(DrainShard(at_ms=5, shard=ShardId("nine"))) == "no_such_shard"
    plane.do(DrainShard(at_ms=5, shard=ShardId("s2")))
    assert plane.refused(DrainShard(at_ms=5, shard=ShardId("s3"))) == "last_shard"


def test_a_rebalance_pauses_by_itself_when_move_after_move_fails(plane):
    plan = plan_moves(plane.state, {}, [(Bucket(bucket), ShardId("s3")) for bucket in range(5)])
    plane.do(TakeOver(at_ms=1, token=TOKEN, node=1))
    plane.do(StartRebalance(at_ms=2, plan=plan))
    for planned in plan.moves[:3]:
        assert plane.state.rebalance.status is RebalanceStatus.RUNNING
        plane.move = uuid4()
        plane.do(BeginMove(at_ms=3, executor=1, move=plane.move, planned=planned))
        plane.do(plane.say(GiveUp, reason="no room", fail=True))
        plane.do(plane.say(Aborted))
    assert plane.state.rebalance.status is RebalanceStatus.PAUSED
    assert [move.reason for move in plane.state.ended] == ["no room"] * 3
    plane.do(ResumeRebalance(at_ms=4, rebalance=plan.id))
    assert plane.state.rebalance.status is RebalanceStatus.RUNNING


def test_users_that_never_moved_are_not_told_as_moved(plane):
    plane.run_to(Stage.COMMITTED, users=10)
    plane.do(CancelRebalance(at_ms=1_002, rebalance=plane.state.rebalance.id))
    told = rebalance_document(plane.state, plane.state.rebalance, 9_000)
    assert (told.status, told.committed, told.cancelled) == ("cancelled", 1, 1)
    assert (told.users_moved, told.bytes_moved, told.users_per_s) == (10, 9, 10.0)


def test_the_time_left_knows_of_pauses_and_of_empty_buckets(plane):
    plane.run_to(Stage.COMMITTED, users=10)
    rebalance = plane.state.rebalance.id
    plane.do(PauseRebalance(at_ms=1_002, rebalance=rebalance))
    plane.do(ResumeRebalance(at_ms=60_002, rebalance=rebalance))
    told = rebalance_document(plane.state, plane.state.rebalance, 61_002)
    assert (told.users_per_s, told.eta_s) == (5.0, 2.0), "two seconds, without the minute of the pause"
    empty = Plane(a_state(2, 1)).run_to(Stage.COMMITTED)
    told = rebalance_document(empty.state, empty.state.rebalance, 2_002)
    assert (told.users_per_s, told.eta_s) == (None, 2.0), "one bucket in two seconds, and one is left"


def test_why_a_move_failed_is_told_however_many_end_after_it(plane, monkeypatch):
    monkeypatch.setattr(limits, "control_ended_moves_max", 1)
    plane.run_to(Stage.COPYING)
    failed, rest = plane.move, plane.state.rebalance.queue[0]
    plane.do(plane.say(GiveUp, reason="no room", fail=True))
    plane.do(plane.say(Aborted))
    plane.move = uuid4()
    plane.go_on(rest, Stage.CLEANING)
    plane.do(plane.say(Cleaned))
    told = rebalance_document(plane.state, plane.state.rebalance, 9_000)
    assert [(move.id, move.stage, move.reason) for move in told.last] == [
        (failed, "failed", "no room"),
        (plane.move, "done", None),
    ]


def test_the_last_word_about_a_draining_shards_data_counts(plane):
    s1 = ShardId("s1")
    for purge in (False, True, False):
        plane.do(DrainShard(at_ms=5, shard=s1, purge=purge))
        assert plane.state.shards[s1].purge is purge


def test_a_joining_shard_can_be_given_up(plane):
    plane.do(AddShard(at_ms=1, shard=ShardId("s4"), dsn="postgresql://nowhere/"))
    plane.do(RemoveShard(at_ms=2, shard=ShardId("s4")))
    assert plane.state.shards[ShardId("s4")].status is ShardStatus.REMOVED


@pytest.mark.parametrize("stage", [Stage.PLANNED, Stage.COPYING, Stage.TAILING, Stage.FENCED, Stage.VERIFIED])
def test_moves_do_not_wait_for_a_target_that_is_lost(plane, stage):
    plane.run_to(stage)
    assert plane.refused(RemoveShard(at_ms=9, shard=ShardId("s1"), lost=True)) == "shard_owns_buckets"
    plane.do(RemoveShard(at_ms=9, shard=ShardId("s3"), lost=True))
    assert plane.state.rebalance.queue == ()
    if stage in (Stage.FENCED, Stage.VERIFIED):
        assert plane.record.stage is Stage.RELEASING
        assert not plane.record.may_be_open, "by the operator's word"
        plane.do(plane.say(Reopened))
    assert plane.state.moves == {}
    assert plane.state.ended[-1].stage is Stage.FAILED
    assert plane.state.map.shard_of(Bucket(0)) == "s1"
    assert plane.state.rebalance.status is RebalanceStatus.DONE


def test_a_cancel_that_waits_for_a_lost_target_ends(plane):
    plane.run_to(Stage.COPYING)
    plane.do(CancelRebalance(at_ms=8, rebalance=plane.state.rebalance.id))
    assert plane.record.stage is Stage.ABORTING
    plane.do(RemoveShard(at_ms=9, shard=ShardId("s3"), lost=True))
    assert plane.state.ended[-1].stage is Stage.CANCELLED


def test_founding_happens_once():
    plane, id = Plane(ControlState()), uuid4()
    shards: dict[ShardId, str | None] = {ShardId("s1"): None}
    founded = Founded(at_ms=1, deployment=id, map=initial_map([ShardId("s1")]), shards=shards)
    assert plane.refused(AddShard(at_ms=1, shard=ShardId("s2"))) == "not_founded"
    plane.do(founded)
    plane.do(founded)
    other = Founded(at_ms=1, deployment=uuid4(), map=initial_map([ShardId("s1")]), shards=shards)
    assert plane.refused(other) == "already_founded"


def test_a_control_plane_that_begins_anew_gives_no_removed_name_out_again():
    plane, s1, s2 = Plane(ControlState()), ShardId("s1"), ShardId("s2")
    first = initial_map([s1])
    plane.do(Founded(at_ms=1, deployment=uuid4(), map=first, shards={s1: None}, removed={s2: None}))
    assert plane.state.shards[s2].status is ShardStatus.REMOVED
    assert plane.refused(AddShard(at_ms=1, shard=s2)) == "shard_exists"


def test_a_shard_that_was_joining_when_a_control_plane_was_lost_goes_on_joining():
    plane, s1, s2 = Plane(ControlState()), ShardId("s1"), ShardId("s2")
    first = initial_map([s1])
    plane.do(Founded(at_ms=1, deployment=uuid4(), map=first, shards={s1: None}, joining={s2: "dbname=a"}))
    assert plane.state.shards[s2].status is ShardStatus.JOINING
    assert plane.refused(AddShard(at_ms=1, shard=s2, dsn="dbname=b")) == "shard_exists"
    plane.do(ShardReady(at_ms=2, shard=s2))
    assert plane.state.shards[s2].status is ShardStatus.ACTIVE


def test_settings_and_weights_have_bounds(plane):
    assert plane.refused(ChangeSettings(at_ms=1, moves_per_server=0)) == "bad_setting"
    assert plane.refused(SetWeight(at_ms=1, shard=ShardId("s1"), weight=0.0)) == "bad_weight"


def test_a_snapshot_is_the_whole_state(plane):
    plane.run_to(Stage.VERIFIED)
    assert decode_state(plane.machine.snapshot()) == plane.state


def test_formats_of_later_releases_are_refused_loudly():
    with pytest.raises(ValueError, match="format 9"):
        decode_command(b"\x92\x09\x80")
    with pytest.raises(ValueError, match="format 9"):
        decode_state(b"\x92\x09\x80")
