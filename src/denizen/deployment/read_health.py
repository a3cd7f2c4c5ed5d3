"""How the read side of a deployment is: its database, each read model, and what is parked."""

import asyncio
from typing import Any, Final

import asyncpg
from msgspec import Struct

from denizen import limits
from denizen.deployment.config import hide_password
from denizen.deployment.layout import READ_SERVER, Deployment
from denizen.projections.control import VersionState, version_states

_FIGURES: Final = """
    select current_setting('server_version') as version, pg_database_size(current_database()) as bytes,
           (select count(*) - 1 from pg_stat_activity where datname = current_database()) as sessions,
           (select count(*) from denizen_read.parked) as parked
"""


class ReadHealth(Struct, frozen=True):
    """The read database, and the read models in it. `state` is "up", or "down" with a `problem`.

    `parked`: streams that wait at an event which a read model cannot take. `place`: the DSN of a server of yours.
    """

    id: str
    state: str
    managed: bool
    problem: str | None = None
    place: str | None = None
    version: str | None = None
    bytes: int | None = None
    sessions: int | None = None
    port: int | None = None
    pid: int | None = None
    restarts: int = 0
    parked: int | None = None
    projections: tuple[VersionState, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything is as it should be: the database answers, and no live read model stands still."""
        return self.state == "up" and all(each.state == "running" for each in self.projections if each.live)


def problem(error: Exception, managed: bool) -> str:
    """Why a database does not answer, for people; `managed`: its server is one of ours."""
    if managed and isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return "not running"
    return str(error) or "no answer"


async def ask_read(deployment: Deployment) -> ReadHealth:
    """Ask the read database."""
    dsn = deployment.read_dsn
    facts: dict[str, Any] = {"id": READ_SERVER, "managed": dsn is None}
    if dsn is not None:
        facts["place"] = hide_password(dsn)
    known = deployment.state().shards.get(READ_SERVER)
    if known is not None and dsn is None:
        facts |= {"port": known.port, "pid": known.pid, "restarts": known.restarts}
    try:
        async with asyncio.timeout(limits.probe_s):
            connection = await asyncpg.connect(**deployment.read_connect_args)
            try:
                facts |= dict(await connection.fetchrow(_FIGURES))
                versions = tuple(await version_states(connection))
            finally:
                await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return ReadHealth(state="down", problem=problem(error, dsn is None), **(facts | {"pid": None}))
    return ReadHealth(state="up", projections=versions, **facts)
