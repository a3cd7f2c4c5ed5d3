"""The projector: all running projections of a region, in one process, fed by one feed.

One projector at a time is in charge, by a lock of the read database; others wait for it. The lock only saves work:
what keeps every event applied exactly once are the checkpoints (see `runner`). Whatever goes wrong with a connection,
the projector gives everything up and begins again from what the read database holds.

    pause, resume      rows of `projections`, looked at every half second
    unknown event      pauses what runs, with that reason, until a newer program starts
    refused table      pauses the one projection, with the database's reason
    no such projection, or another definition of its tables: pauses that version, until a program has it
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any, Final

import asyncpg
import structlog

from denizen import limits
from denizen.bus.batches import Batch, Feed
from denizen.bus.rush import GivingWay, Rush
from denizen.errors import DenizenError
from denizen.events.codec import UnknownEvent
from denizen.events.lanes import BROKEN, PASSING
from denizen.projections import registry
from denizen.projections.applying import apply_together
from denizen.projections.arrivals import Arrivals
from denizen.projections.database import connect_writer
from denizen.projections.metrics import Lag
from denizen.projections.projection import Projection
from denizen.projections.runner import Runner, StreamReader
from denizen.sharding.ids import Bucket

_log = structlog.get_logger()
_LOCK: Final = 0x64656E70726F6A  # "denproj"
UNKNOWN_EVENT: Final = "unknown event"
OpenFeed = Callable[[Mapping[Bucket, int]], AbstractAsyncContextManager[Feed]]

_PROGRESS: Final = """
    insert into denizen_read.progress as p (projection, version, at, as_of, lag_events, lag_ms_p50, lag_ms_p99)
    select projection, version, clock_timestamp(),
           case when silence < 1e6 then clock_timestamp() - make_interval(secs => silence) end, lag, p50, p99
    from unnest($1::text[], $2::integer[], $3::bigint[], $4::float8[], $5::float8[], $6::float8[])
         as told (projection, version, lag, p50, p99, silence)
    on conflict (projection, version) do update set
        at = excluded.at, as_of = greatest(p.as_of, excluded.as_of), lag_events = excluded.lag_events,
        lag_ms_p50 = excluded.lag_ms_p50, lag_ms_p99 = excluded.lag_ms_p99
"""


class Projector:
    """Runs the projections until it is cancelled.

    `open_feed` opens a feed from the given starts; `read_stream` reads a parked stream for a retry. `giving_way`: to
    writers, in a rush; without it, to nobody.
    """

    def __init__(
        self,
        connect_args: Mapping[str, Any],
        projections: Mapping[str, Projection],
        open_feed: OpenFeed,
        read_stream: StreamReader,
        giving_way: GivingWay | None = None,
    ) -> None:
        self._connect_args = connect_args
        self._projections = projections
        self._open_feed = open_feed
        self._read_stream = read_stream
        self._giving_way = GivingWay(Rush(), 0.0) if giving_way is None else giving_way

    async def run(self) -> None:
        """Take charge, apply, begin again after trouble; for ever."""
        retried_unknown = False
        while True:
            try:
                async with self._in_charge() as control:
                    if not retried_unknown:
                        await _resume_unknown(control)
                        retried_unknown = True
                    await Session(
                        control,
                        self._connect_args,
                        self._projections,
                        self._open_feed,
                        self._read_stream,
                        giving_way=self._giving_way,
                    ).run()
            except (*BROKEN, *PASSING, DenizenError, asyncpg.PostgresError) as error:
                _log.warning("projector_begins_again", error=str(error) or type(error).__name__)
            await asyncio.sleep(limits.projector_retry_s)

    @asynccontextmanager
    async def _in_charge(self) -> AsyncIterator[asyncpg.Connection]:
        control = await connect_writer(self._connect_args)
        try:
            while not await control.fetchval("select pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
                await asyncio.sleep(limits.projector_takeover_s)
            yield control
        finally:
            control.terminate()


class Session:
    """One time in charge."""

    def __init__(
        self,
        control: asyncpg.Connection,
        connect_args: Mapping[str, Any],
        projections: Mapping[str, Projection],
        open_feed: OpenFeed,
        read_stream: StreamReader,
        *,
        giving_way: GivingWay,
    ) -> None:
        self._control = control
        self._connect_args = connect_args
        self._projections = projections
        self._open_feed = open_feed
        self._read_stream = read_stream
        self._giving_way = giving_way
        self._writer: asyncpg.Connection  # of all runners
        self._runners: dict[tuple[str, int], Runner] = {}
        self._lags: dict[tuple[str, int], Lag] = {}
        self._heads: Mapping[Bucket, int] | None = None
        self._taken: dict[Bucket, int] = {}  # what the feed has given, by bucket
        self._feed: Feed | None = None
        self._stack = AsyncExitStack()

    async def run(self) -> None:
        """Apply events, and look after pauses, wishes and new versions; ends by an error only."""
        loop = asyncio.get_running_loop()
        due = 0.0
        async with self._stack:
            self._stack.callback(self._close_all)
            await self._create_missing()
            self._writer = await connect_writer(self._connect_args)
            self._stack.callback(self._writer.terminate)
            while True:
                if loop.time() >= due:
                    await self._look_after()
                    due = loop.time() + limits.projector_control_s
                if self._feed is None or not self._runners:
                    await asyncio.sleep(limits.projector_wait_s)
                    continue
                try:
                    events_max = self._giving_way.events_max(limits.projector_batch_events_max)
                    batch = await self._feed.next_batch(events_max, limits.projector_wait_s)
                except UnknownEvent as error:
                    await self._pause_all(f"{UNKNOWN_EVENT}: {error}")
                    continue
                self._heads = batch.heads
                if batch.events or batch.spans:
                    began = loop.time()
                    await self._apply(batch)
                    await self._rest(loop.time() - began, far_behind=len(batch.events) >= events_max)

    async def _rest(self, worked: float, *, far_behind: bool) -> None:
        """Let events gather: more the longer it worked, so that on a busy machine it does more at a time, for less."""
        rest = min(worked * limits.event_plane_rest, limits.projector_pause_s_max)
        rest = 0.0 if far_behind else max(rest, limits.projector_pause_s - worked)
        await asyncio.sleep(max(rest, self._giving_way.rest(far_behind=far_behind)))

    async def _apply(self, batch: Batch) -> None:
        arrivals = Arrivals.of_batch(batch)
        self._taken.update(arrivals.ends)
        applied = await apply_together(self._writer, list(self._runners.values()), arrivals)
        for key, runner in list(self._runners.items()):
            if (error := applied.failed.get(runner)) is not None:
                await self._pause(key, f"{type(error).__name__}: {error}")
            else:
                self._lags[key].applied(batch.events, applied.new[runner])

    async def _create_missing(self) -> None:
        """Make the first version of projections that are new, and let readers see it."""
        known = {version.projection for version in await registry.versions(self._control)}
        for name, projection in self._projections.items():
            if name not in known:
                async with self._control.transaction():
                    await registry.create_version(self._control, projection, 1, state="running", indexed=True)
                    await registry.make_live(self._control, projection, 1)
                _log.info("projection_created", projection=name)

    async def _look_after(self) -> None:
        wanted = {}
        for version in await registry.versions(self._control):
            key, why = (version.projection, version.version), version.obstacle(self._projections)
            if version.state == "running" and why is None:
                wanted[key] = self._projections[version.projection]
            elif version.state == "running":
                _log.warning("projection_paused", projection=key[0], version=key[1], reason=why)
                await registry.pause(self._control, *key, str(why))
            elif version.reason == registry.UNKNOWN_PROJECTION and why is None:  # it is installed again
                await registry.resume(self._control, *key)
        for key in self._runners.keys() - wanted.keys():
            self._close(key)
        opened = [await self._open(key, wanted[key]) for key in sorted(wanted.keys() - self._runners.keys())]
        if opened:
            await self._rewind(opened)
        await self._grant_wishes()
        await self._tell_progress()

    async def _open(self, key: tuple[str, int], projection: Projection) -> Runner:
        runner = Runner(self._writer, projection, key[1])
        await runner.open()
        self._runners[key], self._lags[key] = runner, Lag(projection.name)
        return runner

    def _close(self, key: tuple[str, int]) -> None:
        self._lags.pop(key).close()
        del self._runners[key]

    def _close_all(self) -> None:
        for key in list(self._runners):
            self._close(key)

    async def _rewind(self, opened: list[Runner]) -> None:
        """Have the feed give what these runners need; the others pass over what they know."""
        starts = {bucket: min(runner.checkpoints[bucket] for runner in opened) for bucket in opened[0].checkpoints}
        if self._feed is None:
            self._taken = starts
            self._feed = await self._stack.enter_async_context(self._open_feed(dict(starts)))
            return
        # What lies in the feed and was not given yet comes after `_taken`; a runner that is ahead needs nothing.
        behind = {bucket: start for bucket, start in starts.items() if start < self._taken[bucket]}
        self._feed.seek(behind)
        self._taken.update(behind)

    async def _grant_wishes(self) -> None:
        for parked in await registry.parked(self._control):
            runner = self._runners.get((parked.projection, parked.version))
            if parked.wish is not None and runner is not None:
                flows = await runner.unpark(parked, self._read_stream)
                _log.info("parked_stream", projection=parked.projection, wish=parked.wish, flows=flows)

    async def _tell_progress(self) -> None:
        if self._heads is None or self._feed is None:
            return
        silence = self._feed.silence_s
        lag = most = 0
        told: list[tuple[Any, ...]] = []
        known = dict[Bucket, int]()
        for key, runner in self._runners.items():
            await runner.store()
            if runner.checkpoints != known:  # most are where the one before is
                known = runner.checkpoints
                lag = sum(max(0, head - known[bucket]) for bucket, head in self._heads.items())
            most = max(most, lag)
            self._lags[key].behind(lag)
            told.append((*key, lag, *self._lags[key].percentiles(), silence if lag == 0 else inf))
        if told:
            await self._control.execute(_PROGRESS, *zip(*told, strict=True))
        if most < limits.projector_batch_events_max:
            self._giving_way.caught_up()

    async def _pause_all(self, reason: str) -> None:
        for key in list(self._runners):
            await self._pause(key, reason)

    async def _pause(self, key: tuple[str, int], reason: str) -> None:
        _log.error("projection_paused", projection=key[0], version=key[1], reason=reason)
        await registry.pause(self._control, *key, reason)
        self._close(key)


async def _resume_unknown(control: asyncpg.Connection) -> None:
    """What an older program paused at an event that it did not know is tried again by this one."""
    await control.execute(
        "update denizen_read.projections set state = 'running', reason = null"
        " where state = 'paused' and starts_with(reason, $1)",
        UNKNOWN_EVENT,
    )
