"""What did not fit between the snapshots of two shards, looked at again as it is now.

A user's name in another bucket that had no row, or somebody else's: the user may have changed between the snapshots.
A bucket with more rows for users of other buckets than those users account for: each of its rows is looked at. What
still does not fit after some seconds is a difference.
"""

import asyncio
import time
from collections import Counter
from uuid import UUID

from denizen import limits
from denizen.bulk.shards import Shards
from denizen.bulk.verification.differences import Difference
from denizen.bulk.verification.fold import Elsewhere
from denizen.bulk.verification.messages import Found
from denizen.events.records import decode_state
from denizen.sharding.ids import Bucket, bucket_of
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.login_names import LoginNameKind

_ROWS = """
    select l.kind, l.value, l.user_id from denizen.login_names l
    where l.bucket = $1 and not exists (
        select from denizen.login_names_unsettled s
        where s.bucket = l.bucket and s.kind = l.kind and s.value = l.value and s.state = 'reserved'
    )
"""
_ROW = """
    select l.user_id, coalesce(s.state, 'held') as state from denizen.login_names l
    left join denizen.login_names_unsettled s on s.bucket = l.bucket and s.kind = l.kind and s.value = l.value
    where l.bucket = $1 and l.kind = $2 and l.value = $3
"""
_USER = "select document from denizen.users where bucket = $1 and id = $2"
_PAUSE_S = 0.1


class SecondLook:
    """Collects what the workers could not decide, then decides it."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._login_names_of = LoginNamesOf(shards.hash_seed, shards.kinds)
        self._suspects: list[Elsewhere] = []
        self._dropped = 0
        self._balance: Counter[int] = Counter()

    def add(self, found: Found) -> None:
        """Take over what a task left open."""
        room = limits.verify_differences_max - len(self._suspects)
        self._suspects += found.suspects[: max(room, 0)]
        self._dropped += max(len(found.suspects) - room, 0)
        self._balance.update(found.held)
        self._balance.subtract(found.expected)

    async def run(self) -> list[Difference]:
        """The differences that remain."""
        suspects = list(self._suspects)
        for bucket, balance in self._balance.items():
            if balance:
                suspects += await self._rows_of_others(bucket)
        deadline = time.monotonic() + limits.verify_recheck_s
        while True:
            await self._shards.refresh()  # buckets may move while we look
            remaining = [(name, wrong) for name in dict.fromkeys(suspects) if (wrong := await self._wrong(name))]
            if not remaining or time.monotonic() > deadline:
                return [wrong for _, wrong in remaining]
            suspects = [name for name, _ in remaining]
            await asyncio.sleep(_PAUSE_S)

    async def _rows_of_others(self, bucket: int) -> list[Elsewhere]:
        connection = await self._shards[self._shards.map.shard_of(Bucket(bucket))].connection()
        return [
            Elsewhere(user_id, kind, value, bucket)
            for kind, value, user_id in await connection.fetch(_ROWS, bucket)
            if bucket_of(user_id) != bucket
        ]

    async def _wrong(self, name: Elsewhere) -> Difference | None:
        """What is wrong with this name of this user at this moment, if anything."""
        user_has = await self._user_has(name)
        connection = await self._shards[self._shards.map.shard_of(Bucket(name.bucket))].connection()
        row = await connection.fetchrow(_ROW, name.bucket, name.kind, name.value)
        row_is_theirs = row is not None and row["user_id"] == name.user_id
        if user_has == row_is_theirs or (row_is_theirs and row["state"] != "held"):
            return None
        if user_has:
            detail = "the user has it, but " + ("it has no row" if row is None else f"its row is of {row['user_id']}")
            return _difference("name_missing", name, detail)
        return _difference("name_extra", name, "its user does not have it")

    async def _user_has(self, name: Elsewhere) -> bool:
        home = bucket_of(UUID(str(name.user_id)))
        connection = await self._shards[self._shards.map.shard_of(home)].connection()
        document = await connection.fetchval(_USER, home, name.user_id)
        if document is None:
            return False
        return (name.kind, name.value, name.bucket) in self._login_names_of(decode_state(document))


def _difference(kind: str, name: Elsewhere, detail: str) -> Difference:
    field = LoginNameKind(name.kind).word
    return Difference(kind, name.bucket, detail, name.user_id, name.value, field=field)
