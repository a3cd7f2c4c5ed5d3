"""The end of a copy, under the fence: what is left is brought, what is there is compared. Few round trips, for writers
wait.

All that is done on the target is one transaction, and its last statement writes down that both are equal; so `EQUAL`
can neither be lost nor be found by half. If something differs, everything stays as it is, to be looked at and removed.
"""

import asyncio
from typing import Any, Final

import asyncpg

from denizen import limits
from denizen.moving import comparing
from denizen.moving.comparing import Touched
from denizen.moving.move import Head, Move, Verdict, Verification
from denizen.moving.servers import Statements, meaning, transaction
from denizen.moving.slices import POSITION, Slicer
from denizen.processes.frames import first_cause
from denizen.sharding.ids import Epoch, Sequence

_REST: Final = "select head, digest, events, records, commands from denizen.move_rest($1, $2, $3, $4, $5, $6, $7)"
_INSERT: Final = "insert into denizen.events select * from unnest($1::denizen.events[])"
_CARRY: Final = "select denizen.move_carry($1, $2, $3, $4)"
_VERIFIED: Final = "select denizen.move_verified($1, $2, $3)"
_SECRETS: Final = "select sequence, secret from denizen.events where bucket = $1 and secret is not null"
_SET_SECRETS: Final = "select denizen.move_secrets($1, $2, $3)"
_EVER: Final = "-infinity"


class Finish:
    """One finish of one move, fenced at `epoch`. `touched` is None if the whole bucket is to be compared."""

    def __init__(
        self, move: Move, epoch: Epoch, slicer: Slicer, source: asyncpg.Connection, target: asyncpg.Connection
    ) -> None:
        self._move = move
        self._who = (move.id, move.attempt, move.bucket)
        self._epoch = epoch
        self._slicer = slicer
        self._source = source
        self._target = target

    async def run(self, touched: Touched | None) -> Verification:
        """Bring, compare, write down."""
        while (found := await self._run(touched)) is None:  # more is missing than fits into one statement
            done = await self._slicer.copy(
                self._source, self._target, self._move, limits.move_slice_events_max, tell=touched is not None
            )
            if touched is not None:
                touched.users.update(done.users)
                touched.names.update(done.names)
        head, tables = found
        if not tables:
            return Verification(Verdict.EQUAL, head)
        differences = await comparing.differences(self._source, self._target, self._move.bucket, tables)
        return Verification(Verdict.DIFFERENT, head, tuple(differences))

    async def _run(self, touched: Touched | None) -> tuple[Head, list[str]] | None:
        bucket = self._move.bucket
        async with transaction(self._target):
            after, keys_since = await self._target.fetchrow(POSITION, *self._who)
            rest = await self._rest(after, keys_since)
            if rest["events"] is None:
                return None
            source = await self._bring_and_count(after, keys_since, rest, touched)
            tables = await comparing.unequal(source, self._target, bucket, touched)
            if "idempotency records" in tables:  # a clock was set back, or old ones were forgotten meanwhile
                again = await self._rest(rest["head"], _EVER)
                await self._carry(_EVER, again)
                source = await self._count(touched)
                tables = await comparing.unequal(source, self._target, bucket, touched)
            if tables == ["secrets"]:  # some were wrapped anew while they were copied
                await self._carry_secrets()
                tables = await comparing.unequal(source, self._target, bucket, touched)
            if not tables:
                await self._target.execute(_VERIFIED, *self._who)
        return Head(Sequence(rest["head"]), rest["digest"]), tables

    async def _bring_and_count(
        self, after: int, keys_since: str, rest: asyncpg.Record, touched: Touched | None
    ) -> asyncpg.Record:
        """The source counts while the target writes, unless it is to count what is touched by that."""
        if touched is not None:
            await self._bring(after, keys_since, rest, touched)
            return await self._count(touched)
        try:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(self._count(None))
                await self._bring(after, keys_since, rest, None)
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from errors
        return counting.result()

    async def _rest(self, after: int, keys_since: str) -> asyncpg.Record:
        with meaning(self._move.source):
            return await self._source.fetchrow(
                _REST, *self._who, self._epoch, after, limits.move_finish_events_max, keys_since
            )

    async def _count(self, touched: Touched | None) -> asyncpg.Record:
        with meaning(self._move.source):
            return await comparing.digest(self._source, self._move.bucket, touched)

    async def _bring(self, after: int, keys_since: str, rest: asyncpg.Record, touched: Touched | None) -> None:
        if rest["events"]:
            await self._target.execute(_INSERT, _tuples(rest["events"]))
            rows = await self._slicer.take_up(self._target, self._move.bucket, after, after + len(rest["events"]))
            if touched is not None:
                touched.users.update(rows.user_ids())
                touched.names.update(rows.name_keys())
        await self._carry(keys_since, rest)

    async def _carry(self, keys_since: str, rest: asyncpg.Record) -> None:
        records, commands = _tuples(rest["records"]), _tuples(rest["commands"])
        await self._target.execute(_CARRY, self._move.bucket, keys_since, records, commands)

    async def _carry_secrets(self) -> None:
        with meaning(self._move.source):
            rows = await self._source.fetch(_SECRETS, self._move.bucket)
        sequences, secrets = [row[0] for row in rows], [row[1] for row in rows]
        await self._target.execute(_SET_SECRETS, self._move.bucket, sequences, secrets)


WARM: Final[Statements] = (
    (_INSERT, ([],)),
    (_CARRY, (-1, _EVER, [], [])),
    (comparing.DIGEST, (-1,)),
    (comparing.DIGEST_OF, (-1, [], [], [])),
    (comparing.EVENTS, (-1, 0)),
)
"""Statements that change nothing so, and are quick the next time on the same connection."""


def _tuples(rows: list[asyncpg.Record]) -> list[tuple[Any, ...]]:
    """Rows as the driver takes them for an array of a table's type."""
    return [tuple(row) for row in rows]
