"""The operators' verbs, each one a question to the control plane or a command for it.

The command line and the HTTP API both come through here, so that they say and refuse the same.
"""

import asyncio
import time
from collections.abc import Sequence

import asyncpg
from msgspec.structs import asdict

from denizen import limits
from denizen.api.operations import (
    BucketDocument,
    ImbalanceDocument,
    MapDocument,
    MeasuredBalance,
    PlanDocument,
    RebalanceDocument,
    RebalanceSettings,
    RebalanceStatusDocument,
    SettingsChanges,
    ShardDocument,
)
from denizen.control.balance import balance, weights
from denizen.control.client import ControlClient
from denizen.control.commands import (
    AddShard,
    CancelRebalance,
    ChangeSettings,
    Command,
    DrainShard,
    HastenClean,
    KeepShard,
    PauseRebalance,
    RemoveShard,
    ResumeRebalance,
    SetWeight,
    StartRebalance,
)
from denizen.control.plan import BalanceBy, Plan
from denizen.control.planner import plan_moves, plan_rebalance, refuse_degraded
from denizen.control.state import COMMITTED, ControlState, Rebalance
from denizen.deployment.config import hide_password, place_of_dsn
from denizen.errors import Invalid, Refused, ShardNotFound, Unavailable
from denizen.events.provisioning import is_a_shard
from denizen.operators import views
from denizen.operators.measuring import ShardMeasures
from denizen.operators.plans import balance_document, plan_document, plan_of
from denizen.postgres.binaries import OLDEST_MAJOR
from denizen.sharding.bucket_map import BucketMap
from denizen.sharding.ids import BUCKETS, Bucket, ShardId

_NAMES_TRIED_MAX = 8


class Desk:
    """Where operators are served. Every method raises `Unavailable` while no control node can answer, and `Refused`
    if the control plane does not do this as things are.
    """

    def __init__(self, control: ControlClient, measures: ShardMeasures) -> None:
        self.control = control
        self._measures = measures

    # Shards

    async def shards(self) -> list[ShardDocument]:
        """All shards."""
        return views.shard_documents(await self.control.state())

    async def shard(self, name: str) -> ShardDocument:
        """One shard; `ShardNotFound`."""
        found = next((each for each in await self.shards() if each.id == name), None)
        if found is None:
            raise ShardNotFound(f"there is no shard {name}")
        return found

    async def add_shard(self, dsn: str | None = None, weight: float = 1.0) -> ShardDocument:
        """Name a new shard, the next number; its server is made or prepared by the supervisor.

        `Invalid` if `dsn` is none; `Refused` if its database does not answer now, or cannot be a new shard: nothing is
        recorded then.
        """
        if dsn is not None:
            await _check_database(dsn)
        for attempt in range(_NAMES_TRIED_MAX):
            state = await self.control.state(linearizable=True)
            name = _next_name(state)
            try:
                await self.control.propose(AddShard(shard=name, dsn=dsn, weight=weight, at_ms=now_ms()))
            except Refused as refused:  # somebody else took the name at the same moment
                if refused.facts.get("reason") != "shard_exists" or attempt == _NAMES_TRIED_MAX - 1:
                    raise
            else:
                break
        return await self._shard(name)

    async def set_weight(self, shard: str, weight: float) -> ShardDocument:
        """How much a shard is to take, in the next plan."""
        return await self._order(shard, SetWeight(shard=ShardId(shard), weight=weight, at_ms=now_ms()))

    async def drain(self, shard: str, *, purge: bool = False) -> ShardDocument:
        """Take nothing any more; the next plan gives everything away."""
        return await self._order(shard, DrainShard(shard=ShardId(shard), purge=purge, at_ms=now_ms()))

    async def keep(self, shard: str) -> ShardDocument:
        """Take a drain back."""
        return await self._order(shard, KeepShard(shard=ShardId(shard), at_ms=now_ms()))

    async def remove(self, shard: str, *, lost: bool = False) -> ShardDocument:
        """Give up a joining shard; with `lost`, one that owns nothing and whose server is gone for good."""
        return await self._order(shard, RemoveShard(shard=ShardId(shard), lost=lost, at_ms=now_ms()))

    async def _order(self, shard: str, command: Command) -> ShardDocument:
        if ShardId(shard) not in (await self.control.state(linearizable=True)).shards:
            raise ShardNotFound(f"there is no shard {shard}")
        await self.control.propose(command)
        return await self._shard(shard)

    async def _shard(self, shard: str) -> ShardDocument:
        documents = views.shard_documents(await self.control.state(linearizable=True))
        return next(document for document in documents if document.id == shard)

    # Plans and rebalances

    async def balance(self) -> MeasuredBalance:
        """How even the shards are that answer, as measured now."""
        state = await self.control.state()
        bucket_map = _map_of(state)
        measured = await self._measures.measure(state, window_s=limits.balance_window_s)
        silent = {str(shard): why for shard, why in measured.degraded.items()}
        every = ((Bucket(bucket), bucket_map.shard_of(Bucket(bucket))) for bucket in range(BUCKETS))
        owners = {bucket: shard for bucket, shard in every if shard not in silent}
        parts = {shard: weight for shard, weight in weights(state).items() if shard not in silent}
        found = {by: balance(owners, parts, measured.buckets, by) for by in BalanceBy}
        imbalance = ImbalanceDocument(*(round(found[by].imbalance, 4) for by in BalanceBy))
        return MeasuredBalance(imbalance, balance_document(found[BalanceBy.USERS]).shards, silent)

    async def plan(self, by: str) -> PlanDocument:
        """What a rebalance would do; nothing is changed. The same document runs it."""
        return plan_document(await self._plan(by))

    async def plan_of_moves(self, buckets: Sequence[int], to: str) -> PlanDocument:
        """A plan of these very moves; buckets that are there already are left out."""
        state = await self.control.state(linearizable=True)
        if ShardId(to) not in state.shards:
            raise ShardNotFound(f"there is no shard {to}")
        measured = await self._measures.measure(state)
        wishes = [(Bucket(bucket), ShardId(to)) for bucket in buckets]
        return plan_document(plan_moves(state, measured.buckets, wishes, measured.degraded))

    async def run(self, document: PlanDocument) -> RebalanceDocument:
        """Carry out a plan, exactly as it is printed. `Refused` if a shard that gives or takes does not answer now."""
        plan = plan_of(document)
        state = await self.control.state(linearizable=True)
        if state.rebalance is None or state.rebalance.id != plan.id:  # else it runs already
            refuse_degraded(plan.shards, await self._measures.silent(state, plan.shards))
        await self.control.propose(StartRebalance(plan=plan, at_ms=now_ms()))
        return await self._rebalance()

    async def status(self) -> RebalanceStatusDocument:
        """How far the rebalance is, if there is one."""
        return views.status_document(await self.control.state(), now_ms())

    async def pause(self) -> RebalanceDocument:
        """Begin nothing more; what is under way stops at the next safe place."""
        current = await self._current()
        await self.control.propose(PauseRebalance(rebalance=current.id, at_ms=now_ms()))
        return await self._rebalance()

    async def resume(self) -> RebalanceDocument:
        """Go on."""
        current = await self._current()
        await self.control.propose(ResumeRebalance(rebalance=current.id, at_ms=now_ms()))
        return await self._rebalance()

    async def cancel(self) -> RebalanceDocument:
        """Undo what is not committed, and begin nothing more."""
        current = await self._current()
        await self.control.propose(CancelRebalance(rebalance=current.id, at_ms=now_ms()))
        return await self._rebalance()

    async def clean(self) -> int:
        """Have the sources' copies of committed moves removed now, without the grace; of how many moves."""
        state = await self.control.state(linearizable=True)
        waiting = [move.id for move in state.moves.values() if move.stage in COMMITTED and not move.hasty]
        for move in waiting:
            await self.control.propose(HastenClean(move=move, at_ms=now_ms()))
        return len(waiting)

    async def settings(self) -> RebalanceSettings:
        """How gently buckets are moved."""
        state = await self.control.state()
        return RebalanceSettings(**asdict(state.settings))

    async def change_settings(self, changes: SettingsChanges) -> RebalanceSettings:
        """Change some of them; what is under way heeds them."""
        await self.control.propose(ChangeSettings(**asdict(changes), at_ms=now_ms()))
        return RebalanceSettings(**asdict((await self.control.state(linearizable=True)).settings))

    async def _plan(self, by: str) -> Plan:
        state = await self.control.state(linearizable=True)
        window_s = limits.plan_window_s if by == BalanceBy.REQUESTS else 0.0
        measured = await self._measures.measure(state, window_s=window_s)
        return plan_rebalance(state, measured.buckets, BalanceBy(by), measured.degraded)

    async def _current(self) -> Rebalance:
        state = await self.control.state(linearizable=True)
        if state.rebalance is None:
            raise Refused("there is no rebalance", reason="no_such_rebalance")
        return state.rebalance

    async def _rebalance(self) -> RebalanceDocument:
        state = await self.control.state(linearizable=True)
        if state.rebalance is None:
            raise Unavailable("the control plane does not know yet what it was told; ask again")
        return views.rebalance_document(state, state.rebalance, now_ms())

    # The map

    async def map(self) -> MapDocument:
        """Which shard owns each bucket."""
        return views.map_document(_map_of(await self.control.state()))

    async def buckets(self, shard: str | None = None) -> list[BucketDocument]:
        """All buckets, or those of one shard."""
        state = await self.control.state()
        bucket_map = _map_of(state)
        if shard is None:
            return views.bucket_documents(state, map(Bucket, range(BUCKETS)))
        if ShardId(shard) not in state.shards:
            raise ShardNotFound(f"there is no shard {shard}")
        owned = bucket_map.buckets_of(ShardId(shard)) if shard in bucket_map.shards else []
        return views.bucket_documents(state, owned)


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


async def _check_database(dsn: str) -> None:
    """A shard that can never join is not worth a name."""
    try:
        place_of_dsn(dsn)
    except ValueError as error:
        raise Invalid(f"`dsn` must be of the form {error}", field="dsn", rule="dsn") from None
    try:
        async with asyncio.timeout(limits.shard_dsn_check_s):
            connection = await asyncpg.connect(dsn)
            try:
                major, taken = connection.get_server_version().major, await is_a_shard(connection)
            finally:
                connection.terminate()
    except (OSError, ValueError, OverflowError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        detail = f"{hide_password(dsn)} does not answer: {error or type(error).__name__}"
        raise Refused(detail, reason="database_unreachable") from None
    if major < OLDEST_MAJOR:
        detail = f"{hide_password(dsn)} is PostgreSQL {major}; Denizen needs {OLDEST_MAJOR} or newer"
        raise Refused(detail, reason="database_unfit")
    if taken:
        detail = f"{hide_password(dsn)} is a shard already, or was one: give an empty database of its own"
        raise Refused(detail, reason="database_unfit")


def _map_of(state: ControlState) -> BucketMap:
    if state.map is None:
        raise Unavailable("the control plane has no map yet")
    return state.map


def _next_name(state: ControlState) -> ShardId:
    """Names are never used again: one more than the highest number so far."""
    numbers = [int(shard[1:]) for shard in state.shards if shard[:1] == "s" and shard[1:].isdigit()]
    return ShardId(f"s{max(numbers, default=0) + 1}")
