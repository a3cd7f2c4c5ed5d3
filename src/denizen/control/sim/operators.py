"""Operators: they found the deployment, add and drain shards, run plans, pause, resume and cancel at bad moments.

What they say goes through any node, is repeated when no answer comes, and may be refused.
"""

from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec.structs import replace

from denizen.control.commands import (
    AddShard,
    CancelMove,
    CancelRebalance,
    ChangeSettings,
    Command,
    DrainShard,
    Founded,
    HastenClean,
    KeepShard,
    PauseRebalance,
    Reply,
    ResumeRebalance,
    ShardReady,
    StartRebalance,
)
from denizen.control.plan import BalanceBy, Plan
from denizen.control.planner import plan_moves, plan_rebalance
from denizen.control.ports import BucketMeasures
from denizen.control.state import ControlState, RebalanceStatus, Settings, ShardStatus
from denizen.errors import Refused
from denizen.raft.errors import NoLeader
from denizen.sharding.bucket_map import initial_map
from denizen.sharding.ids import ShardId

if TYPE_CHECKING:
    from denizen.control.sim.simulation import MovesSimulation

WISHES_US = 60_000


class Operators:
    """One wish at a time, every now and then; when it is calm, only what lets a rebalance end."""

    def __init__(self, sim: "MovesSimulation", rng: Random) -> None:
        self._sim = sim
        self._rng = rng
        self.plans = 0
        self._say(self._founding())
        sim.at(WISHES_US, self._wish)

    def _founding(self) -> Command:
        shards = self._sim.founders
        return Founded(
            at_ms=0,
            deployment=UUID(int=1),
            map=initial_map(shards),
            shards=dict.fromkeys(shards),
        )

    def _say(self, command: Command, tries: int = 30) -> None:
        """Propose it somewhere, again until there is an answer."""
        up = [node for node in self._sim.nodes.values() if node.up]
        leading = [node for node in up if node.leads]
        node = self._rng.choice(leading or up) if up else None

        def told(answer: Reply | Exception) -> None:
            if isinstance(answer, Exception) and tries:
                pause = 20_000 if isinstance(answer, NoLeader) else 1_000
                self._sim.at(self._sim.now + pause, self._say, command, tries - 1)

        if node is None:
            self._sim.at(self._sim.now + 20_000, self._say, command, tries)
        else:
            self._sim.trace.note(self._sim.now, f"an operator says {type(command).__name__}")
            self._sim.proposals.propose(node, command, told)

    def _wish(self) -> None:
        self._sim.at(self._sim.now + self._rng.randrange(WISHES_US), self._wish)
        up = [node for node in self._sim.nodes.values() if node.up]
        if not up:
            return
        state = self._sim.state_of(self._rng.choice(up))
        command = self._calming(state) if self._sim.calm else self._any(state)
        if command is not None:
            self._say(command)

    def _now_ms(self) -> int:
        return 1_000_000 + self._sim.now // 1_000

    def _calming(self, state: ControlState) -> Command | None:
        """What must be said for a rebalance to end: go on, if it was paused."""
        if state.map is None:
            return self._founding()
        rebalance = state.rebalance
        if state.settings.grace_s > 1:
            return self._settings()
        if rebalance is not None and rebalance.status is RebalanceStatus.PAUSED:
            return ResumeRebalance(at_ms=self._now_ms(), rebalance=rebalance.id)
        return None

    def _any(self, state: ControlState) -> Command | None:
        now_ms, rebalance, choice = self._now_ms(), state.rebalance, self._rng.random()
        if state.map is None:
            return None
        if state.settings == Settings():
            return self._settings()
        for shard in state.shards.values():
            if shard.status is ShardStatus.JOINING and self._rng.random() < 0.5:
                return ShardReady(at_ms=now_ms, shard=shard.id)
        if choice < 0.1:
            return self._shards(state)
        if choice < 0.12:
            return self._settings()
        if rebalance is None or rebalance.status in (RebalanceStatus.DONE, RebalanceStatus.CANCELLED):
            return self._start(state)
        if choice < 0.18:
            return PauseRebalance(at_ms=now_ms, rebalance=rebalance.id)
        if choice < 0.9:
            return ResumeRebalance(at_ms=now_ms, rebalance=rebalance.id)
        if choice < 0.91:
            return CancelRebalance(at_ms=now_ms, rebalance=rebalance.id)
        if state.moves:
            move = self._rng.choice(list(state.moves))
            return (HastenClean if choice < 0.96 else CancelMove)(at_ms=now_ms, move=move)
        return None

    def _shards(self, state: ControlState) -> Command | None:
        now_ms = self._now_ms()
        known = self._rng.choice(list(state.shards.values()))
        if known.status is ShardStatus.DRAINING:
            return KeepShard(at_ms=now_ms, shard=known.id)
        absent = [shard for shard in self._sim.servers.databases if shard not in state.shards]
        if absent:
            return AddShard(at_ms=now_ms, shard=ShardId(absent[0]))
        active = [shard for shard in state.shards.values() if shard.status is ShardStatus.ACTIVE]
        return DrainShard(at_ms=now_ms, shard=known.id) if len(active) > 2 else None

    def _settings(self) -> Command:
        return ChangeSettings(
            at_ms=self._now_ms(),
            moves_per_server=self._rng.choice((1, 2, 4)),
            hold_budget_ms=self._rng.choice((50, 100, 400)),
            holds_max=self._rng.choice((2, 4, 6)),
            grace_s=self._rng.choice((0, 0, 1)),
        )

    def _start(self, state: ControlState) -> Command | None:
        """A plan of some of the buckets that are in play, drawn or by the planner."""
        assert state.map is not None  # noqa: S101 - for the type
        measures = {bucket: BucketMeasures(1_000, 100_000, 0.0) for bucket in self._sim.buckets}
        try:
            if self._rng.random() < 0.3:
                plan = plan_rebalance(state, measures, BalanceBy.USERS)
            else:
                active = [shard.id for shard in state.shards.values() if shard.status is ShardStatus.ACTIVE]
                picked = self._rng.sample(self._sim.buckets, self._rng.randint(1, len(self._sim.buckets)))
                plan = plan_moves(state, measures, [(bucket, self._rng.choice(active)) for bucket in picked])
        except Refused:
            return None
        self.plans += 1
        return StartRebalance(at_ms=self._now_ms(), plan=self._in_play(plan))

    def _in_play(self, plan: Plan) -> Plan:
        """Only the moves of buckets that the simulation has rows for."""
        return replace(plan, moves=tuple(move for move in plan.moves if move.bucket in self._sim.buckets))
