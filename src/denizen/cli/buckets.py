"""`denizen buckets`: where they are, and moving them by hand."""

from typing import Annotated

from cyclopts import App, Parameter

from denizen.api.operations import BucketDocument
from denizen.cli.documents import print_json, print_table
from denizen.cli.errors import CalledWrongly
from denizen.cli.operating import DetachOption, at_the_desk
from denizen.cli.options import DataOption, JsonOption
from denizen.errors import Invalid
from denizen.operators.desk import Desk
from denizen.sharding.ranges import parse_buckets, write_buckets

app = App(
    name="buckets",
    help="The 4,096 buckets: who owns them, and moving some by hand.",
    help_epilogue="""
`denizen rebalance` moves what must be moved; by hand is for the rest, such as
one busy bucket that is to be alone. Buckets are written 5, 10-20 or 3,7,100-199.

Examples:

    denizen buckets list
    denizen buckets list --shard s2 --all
    denizen buckets move 17,200-210 --to s3
""",
    help_format="plaintext",
)


@app.command(name="list")
def list_(
    *,
    shard: Annotated[str | None, Parameter(help="Of this shard only.")] = None,
    all: Annotated[bool, Parameter(negative="", help="A line for each bucket.")] = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Which shard owns which buckets; those that are moving with their stage."""
    found = at_the_desk(data, lambda desk: desk.buckets(shard))
    if json:
        print_json({"items": found})
    elif all:
        rows = [(each.bucket, each.shard, each.epoch, *_move(each)) for each in found]
        print_table(("bucket", "shard", "epoch", "moves to", "stage"), rows)
    else:
        _print_owners(found)


@app.command
def move(
    buckets: Annotated[str, Parameter(help="Buckets, such as 5 or 3,10-20.")],
    /,
    *,
    to: Annotated[str, Parameter(help="The shard that is to own them.")],
    detach: DetachOption = False,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Move buckets to a shard, whatever that does to the balance."""
    from denizen.cli.rebalance import run_and_show

    try:
        wanted = parse_buckets(buckets)
    except Invalid as error:
        raise CalledWrongly(error.detail) from None

    async def work(desk: Desk) -> None:
        plan = await desk.plan_of_moves(wanted, to)
        if not plan.moves and not json:
            print(f"shard {to} owns them already")
            return
        await run_and_show(desk, plan, as_json=json, detach=detach)

    at_the_desk(data, work)


def _print_owners(found: list[BucketDocument]) -> None:
    owners: dict[str, list[int]] = {}
    for each in found:
        owners.setdefault(each.shard, []).append(each.bucket)
    rows = [(shard, len(buckets), write_buckets(buckets)) for shard, buckets in owners.items()]
    print_table(("shard", "count", "buckets"), rows)
    for each in found:
        if each.move is not None:
            print(f"bucket {each.bucket} moves to {each.move.target}: {each.move.stage}")


def _move(bucket: BucketDocument) -> tuple[str | None, str | None]:
    return (bucket.move.target, bucket.move.stage) if bucket.move else (None, None)
