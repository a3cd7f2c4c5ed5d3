"""Plans as documents and back, without loss: what was printed is what is run."""

from denizen.api.operations import BalanceDocument, PlanDocument, PlannedMoveDocument, ShareDocument
from denizen.control.plan import Balance, BalanceBy, Plan, PlannedMove, Share
from denizen.errors import Invalid
from denizen.sharding.ids import Bucket, ShardId


def plan_document(plan: Plan) -> PlanDocument:
    """The plan as it is printed."""
    return PlanDocument(
        plan.id,
        plan.by.value,
        plan.map_version,
        [PlannedMoveDocument(move.bucket, move.source, move.target, move.users, move.bytes) for move in plan.moves],
        plan.users,
        plan.bytes,
        plan.estimate_s,
        balance_document(plan.before),
        balance_document(plan.after),
    )


def plan_of(document: PlanDocument) -> Plan:
    """The plan that was printed. `Invalid` if somebody made it unfit by hand."""
    if len({move.bucket for move in document.moves}) != len(document.moves):
        raise Invalid("the plan moves a bucket twice", field="moves", rule="repeated")
    if any(move.source == move.target for move in document.moves):
        raise Invalid("the plan moves a bucket to where it is", field="moves", rule="target")
    return Plan(
        document.id,
        BalanceBy(document.by),
        document.map_version,
        tuple(
            PlannedMove(Bucket(move.bucket), ShardId(move.source), ShardId(move.target), move.users, move.bytes)
            for move in document.moves
        ),
        document.users,
        document.bytes,
        document.estimate_s,
        _balance(document.before),
        _balance(document.after),
    )


def balance_document(balance: Balance) -> BalanceDocument:
    """The balance as it is printed."""
    shares = {
        str(shard): ShareDocument(share.buckets, share.users, share.bytes, share.requests, share.filled)
        for shard, share in balance.shards.items()
    }
    return BalanceDocument(balance.imbalance, shares)


def _balance(document: BalanceDocument) -> Balance:
    shares = {
        ShardId(shard): Share(share.buckets, share.users, share.bytes, share.requests, share.filled)
        for shard, share in document.shards.items()
    }
    return Balance(document.imbalance, shares)
