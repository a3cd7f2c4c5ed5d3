"""The steps of a move, on its two servers. What each promises stands in this package's docstring.

Short steps are one statement each, on a warm connection. Slices of a copy run in worker processes. The part under the
fence runs here: there is next to nothing left to copy by then.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final
from uuid import UUID

from asyncpg.exceptions import LockNotAvailableError
from msgspec import Struct, field

from denizen import limits
from denizen.events.sealing import keyring
from denizen.moving import comparing
from denizen.moving.comparing import Touched
from denizen.moving.errors import CopyDiffers, FenceTimeout, MoveAborted, Outrun, SchemasDiffer
from denizen.moving.finishing import WARM, Finish
from denizen.moving.hands import Hands
from denizen.moving.messages import Plan, SliceDone, SliceTask
from denizen.moving.move import Copied, Head, Move, Prepared, Verification
from denizen.moving.pace import Pace
from denizen.moving.room import check_room, estimate
from denizen.moving.servers import ConnectArgs, Servers, meaning
from denizen.moving.slices import Slicer
from denizen.sharding.ids import Epoch, Sequence, ShardId
from denizen.sharding.names_of import LoginNamesOf
from denizen.users.login_names import LoginNameKind

Progress = Callable[[Copied], None]

_BEGIN: Final = "select denizen.move_begin($1, $2, $3, $4, $5)"
_REMOVE: Final = "select denizen.move_remove($1, $2, $3, $4)"
_FENCE: Final = "select head, digest from denizen.move_fence($1, $2, $3, $4, $5, $6, $7)"
_OPEN: Final = "select denizen.move_open($1, $2, $3, $4)"
_CLOSE: Final = "select denizen.move_close($1, $2, $3, $4)"
_REOPEN: Final = "select denizen.move_reopen($1, $2, $3, $4)"
_BAR: Final = "select denizen.move_bar($1, $2, $3, $4, $5)"
_HEAD: Final = "select head from denizen.buckets where bucket = $1"
_SCHEMA: Final = "select string_agg(version || ' ' || checksum, ',' order by version) from denizen.schema_migrations"
_PROBE: Final = "select pg_logical_emit_message(true, 'denizen', '')"


class _Tail(Struct):
    """How the rounds of a move's tail go; lost with the process, which only costs time."""

    head: int = 0  # where the target was last seen
    missing: int | None = None
    vain: int = 0  # rounds in a row that came no nearer
    touched: Touched = field(default_factory=Touched)

    def missing_after(self, done: SliceDone) -> int:
        """Take note of a slice; how many events are missing now."""
        missing = max(done.source_head - done.head, 0)
        nearer = self.missing is None or missing < self.missing * limits.move_tail_nearer
        self.vain = 0 if missing <= limits.move_fence_events_max or nearer else self.vain + 1
        self.head, self.missing = done.head, missing
        self.touched.users.update(done.users)
        self.touched.names.update(done.names)
        return missing


class Mover:
    """All moves of a node. Use it as `async with`; any number of steps of different moves may run at a time."""

    def __init__(
        self,
        connect_args: ConnectArgs,
        hash_seed: int,
        kinds: frozenset[LoginNameKind],
        pace: Pace | None = None,
        *,
        workers: int = limits.move_workers_max,
    ) -> None:
        self.pace = pace or Pace()
        self._servers = Servers(connect_args, WARM)
        self._hands = Hands(Plan(hash_seed, tuple(sorted(kind.value for kind in kinds)), keyring().shared()), workers)
        self._slicer = Slicer(LoginNamesOf(hash_seed, kinds))
        self._tails: dict[UUID, _Tail] = {}
        self._copying = 0

    async def close_all(self) -> None:
        """End the workers, close the connections."""
        await self._hands.close()
        await self._servers.close()

    async def warm(self) -> None:
        """Start the workers now, not with the first copy."""
        await self._hands.warm()

    async def __aenter__(self) -> "Mover":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_all()

    # Before the fence

    async def prepare(self, move: Move) -> Prepared:
        """Check, begin on both servers, and remove what ended moves left on the target."""
        async with self._servers.connection(move.source) as source, self._servers.connection(move.target) as target:
            with meaning(move.source):
                schema = await source.fetchval(_SCHEMA)
                events, size = await estimate(source, move.bucket)
            if schema != await target.fetchval(_SCHEMA):
                raise SchemasDiffer(f"shards {move.source} and {move.target} have different schemas: migrate both")
            await check_room(target, self._servers.connect_args(move.target), move.target, size)
            with meaning(move.source):
                await source.fetchval(_BEGIN, move.id, move.attempt, move.bucket, move.epoch, False)
            state = await target.fetchval(_BEGIN, move.id, move.attempt, move.bucket, move.epoch, True)
        if not self._copying:
            for shard in (move.source, move.target):
                self.pace.calm(shard, await self._probe(shard))
        if state == "clearing":
            await self._remove(move, move.target, lambda copied: None)
        return Prepared(events, size)

    async def copy(self, move: Move, progress: Progress) -> Copied:
        """Copy, slice by slice, up to the source's head as it is at the beginning."""
        size, goal = 0, None
        self._copying += 1
        try:
            while True:
                done = await self._slice(move)
                goal = done.source_head if goal is None else goal
                size += done.bytes
                copied = Copied(done.head, max(goal, done.head), size)
                progress(copied)
                if done.head >= goal:
                    return copied
        finally:
            self._copying -= 1

    async def tail(self, move: Move) -> int:
        """One more round; `Outrun` after some that came no nearer. A large bucket is compared once it is near."""
        tail = self._tails.setdefault(move.id, _Tail())
        done = await self._slice(move)
        missing = tail.missing_after(done)
        if tail.vain >= limits.move_tail_rounds_max:
            del self._tails[move.id]
            raise Outrun(
                f"bucket {move.bucket} gets events faster than they can be copied: {missing} were missing after "
                f"{limits.move_tail_rounds_max} rounds; raise the rate, or try again when there are fewer writes",
                missing=missing,
            )
        near, large = missing <= limits.move_fence_events_max, tail.head > limits.move_whole_events_max
        if near and large and not tail.touched.checked:
            await self._check(move, tail)
            missing = tail.missing_after(await self._slice(move))
        return missing

    async def _check(self, move: Move, tail: _Tail) -> None:
        """Compare the whole bucket at one head; from now on, what is touched is remembered.

        Once more if it differs: what was erased between the two looks is gone on the target a little earlier.
        """
        async with self._servers.connection(move.source) as source, self._servers.connection(move.target) as target:
            for _ in range(limits.move_checks_max):
                with meaning(move.source):
                    there = await comparing.digest(source, move.bucket, None)
                while tail.head < there["head"]:
                    tail.missing_after(await self._slice(move, there["head"] - tail.head))
                tables = await comparing.unequal(there, target, move.bucket, None, carried=False)
                if not tables:
                    tail.touched = Touched(there["head"])
                    return
            found = await comparing.differences(source, target, move.bucket, tables)
        where = f"bucket {move.bucket} differs on {move.target} from what {move.source} has"
        raise CopyDiffers(f"{where}: {', '.join(tables)}", differences=found)

    # The fence

    async def fence(self, move: Move, epoch: Epoch) -> Head:
        """Stop writes to the bucket at the source, if the target is near enough."""
        tail = self._tails.get(move.id)
        if tail is None:
            async with self._servers.connection(move.target) as target:
                tail = self._tails[move.id] = _Tail(await target.fetchval(_HEAD, move.bucket) or 0)
        async with self._servers.connection(move.source) as source:
            try:
                row = await source.fetchrow(
                    _FENCE,
                    *(move.id, move.attempt, move.bucket, move.epoch, epoch),
                    tail.head + limits.move_fence_events_max,
                    limits.move_fence_wait_ms,
                )
            except LockNotAvailableError as error:
                raise FenceTimeout(
                    f"a transaction holds bucket {move.bucket} for more than {limits.move_fence_wait_ms} ms; not fenced"
                ) from error
        return Head(Sequence(row["head"]), row["digest"])

    async def finish(self, move: Move, epoch: Epoch) -> Verification:
        """Bring what is missing, compare, and write down if it is equal: in one transaction on the target."""
        tail = self._tails.get(move.id)
        touched = None if tail is None or not tail.touched.checked else tail.touched
        async with self._servers.connection(move.source) as source, self._servers.connection(move.target) as target:
            found = await Finish(move, epoch, self._slicer, source, target).run(touched)
        self._tails.pop(move.id, None)
        return found

    # After it

    async def open(self, move: Move, epoch: Epoch) -> None:
        """The target takes writes."""
        await self._tell(move.target, _OPEN, move, epoch)

    async def close(self, move: Move, epoch: Epoch) -> None:
        """The source has moved the bucket away."""
        await self._tell(move.source, _CLOSE, move, epoch)

    async def bar(self, move: Move) -> bool:
        """No attempt up to this one opens the target. False: it is open."""
        return bool(await self._tell(move.target, _BAR, move, False, True))

    async def reopen(self, move: Move, epoch: Epoch) -> None:
        """The source takes writes again."""
        self._tails.pop(move.id, None)
        await self._tell(move.source, _REOPEN, move, epoch)

    async def abort(self, move: Move, progress: Progress = lambda copied: None) -> bool:
        """End the move on both servers and remove the target's copy. False: the target is open."""
        self._tails.pop(move.id, None)
        if not await self._tell(move.target, _BAR, move, True, True):
            return False
        await self._tell(move.source, _BAR, move, True, False)
        await self._remove(move, move.target, progress)
        return True

    async def clean(self, move: Move, progress: Progress = lambda copied: None) -> Copied:
        """Remove the source's copy."""
        return await self._remove(move, move.source, progress)

    # Parts of steps

    async def _tell(self, shard: ShardId, statement: str, move: Move, *arguments: Any) -> Any:
        async with self._servers.connection(shard) as connection:
            return await connection.fetchval(statement, move.id, move.attempt, move.bucket, *arguments)

    async def _slice(self, move: Move, events_max: int = limits.move_slice_events_max) -> SliceDone:
        """The next slice, at the pace of both shards."""
        await self._listen(move.source, move.target)
        events = min(self.pace.slice("events"), events_max)
        tail = self._tails.get(move.id)
        tell = tail is not None and tail.touched.checked > 0
        await self.pace.wait("events")
        source, target = (dict(self._servers.connect_args(shard)) for shard in (move.source, move.target))
        done = await self._hands.copy(SliceTask(move, source, target, events, tell))
        self.pace.spent("events", done.head - done.after)
        return done

    async def _remove(self, move: Move, shard: ShardId, progress: Progress) -> Copied:
        """Remove a bucket's rows that nobody reads, a few at a time."""
        removed = 0
        while True:
            rows = self.pace.slice("rows")
            await self.pace.wait("rows")
            try:
                count = await self._tell(shard, _REMOVE, move, rows)
            except MoveAborted:
                count = 0
            self.pace.spent("rows", count)
            removed += count
            progress(Copied(removed, removed, 0))
            if count == 0:
                return Copied(removed, removed, 0)
            await self._listen(shard)

    async def _listen(self, *shards: ShardId) -> None:
        """Probe shards that were not probed lately."""
        for shard in shards:
            if self.pace.due(shard):
                self.pace.heard(shard, await self._probe(shard))

    async def _probe(self, shard: ShardId) -> float:
        """How long a small commit takes there, in seconds."""
        async with self._servers.connection(shard) as connection:
            began = time.monotonic()
            await connection.execute(_PROBE)
            return time.monotonic() - began
