"""The sweeper: finishes or undoes what stopped half-way, changes of login names and erasures, and forgets what is too
old to matter.

Every gateway runs one. They do not coordinate: each step compares what it expects, so that doing it twice is harmless.
"""

import asyncio

import asyncpg
import structlog

from denizen import limits
from denizen.errors import DenizenError
from denizen.events.store import ShardStore
from denizen.service.erasures import Erasures
from denizen.service.login_names import LoginNames
from denizen.service.router import Router
from denizen.users.login_names import LoginName, LoginNameKind

_log = structlog.get_logger()

_STUCK = """
    select l.kind, l.value from denizen.login_names_unsettled l
    join denizen.buckets b on b.bucket = l.bucket and b.state = 'open'
    where l.since < clock_timestamp() - make_interval(secs => $1)
    order by random() limit $2  -- names that cannot be settled now do not keep the others waiting
"""
_FORGET = (
    """delete from denizen.idempotency where ctid = any (array(
        select ctid from denizen.idempotency
        where recorded_at < clock_timestamp() - make_interval(hours => $1) limit $2 for update skip locked))""",
    """delete from denizen.cancelled_commands where ctid = any (array(
        select ctid from denizen.cancelled_commands
        where cancelled_at < clock_timestamp() - make_interval(hours => $1) limit $2 for update skip locked))""",
)


class Sweeper:
    """Sweeps every shard once an interval until it is stopped."""

    def __init__(
        self,
        router: Router,
        names: LoginNames,
        grace_s: float = limits.sweep_grace_s,
        erasures: Erasures | None = None,
    ) -> None:
        self._erasures = erasures
        self._router = router
        self._names = names
        self._grace_s = grace_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop between two steps."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> int:
        """Settle every login name whose change is older than the grace; how many were looked at."""
        return sum(await asyncio.gather(*map(self._sweep_shard, self._router.stores.values())))

    async def forget(self) -> None:
        """Remove idempotency records and cancelled commands that are older than a day."""
        await asyncio.gather(*map(_forget, self._router.stores.values()))

    async def _sweep_shard(self, store: ShardStore) -> int:
        try:
            names = await store.read(self._stuck)
        except DenizenError as error:  # the other shards are swept none the less
            _log.info("shard_not_swept", shard=store.shard_id, error=error.code)
            return 0
        for start in range(0, len(names), limits.sweep_names_at_once_max):
            await asyncio.gather(*map(self._settle, names[start : start + limits.sweep_names_at_once_max]))
        return len(names)

    async def _settle(self, name: LoginName) -> None:
        try:
            await self._names.settle(name)
        except DenizenError as error:
            _log.info("login_name_not_settled", kind=name.kind.word, error=error.code)

    async def _stuck(self, connection: asyncpg.Connection) -> list[LoginName]:
        rows = await connection.fetch(_STUCK, self._grace_s, limits.sweep_names_max)
        return [LoginName(LoginNameKind(kind), value) for kind, value in rows]

    async def _run(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(limits.sweep_interval_s)
            try:
                await self.sweep()
                if self._erasures is not None:
                    await self._erasures.sweep()
                if rounds % limits.forget_every_sweeps == 0:
                    await self.forget()
            except Exception:  # noqa: BLE001 - whatever it was, the next sweep must come
                _log.exception("sweep_failed")
            rounds += 1


async def _forget(store: ShardStore) -> None:
    for statement in _FORGET:

        async def ask(connection: asyncpg.Connection, statement: str = statement) -> bool:
            status: str = await connection.execute(statement, limits.idempotency_kept_h, limits.forget_rows_max)
            return status == f"DELETE {limits.forget_rows_max}"

        try:
            while await store.read(ask):
                pass
        except DenizenError as error:
            _log.info("shard_not_forgotten", shard=store.shard_id, error=error.code)
